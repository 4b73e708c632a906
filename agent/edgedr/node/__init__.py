"""The machine we stand on: its files, its etcd. Everything below a root, so that a drill can have another one."""

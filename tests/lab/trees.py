"""Trees of files: odd ones to make, and a picture of any to compare."""

import hashlib
import os
import stat
from pathlib import Path

NANOSECONDS = 1_700_000_000_123_456_789


def picture(root: Path) -> dict[str, tuple[object, ...]]:
    """Describe everything below ``root`` that a restore must bring back: by path, all but inode numbers."""
    seen: dict[str, tuple[object, ...]] = {}
    names: dict[int, str] = {}
    for path in sorted(root.rglob("*"), key=os.fsencode):
        name = str(path.relative_to(root))
        status = path.lstat()
        content: object = None
        if stat.S_ISREG(status.st_mode):
            content = (hashlib.sha256(path.read_bytes()).hexdigest(), names.setdefault(status.st_ino, name))
        elif stat.S_ISLNK(status.st_mode):
            content = path.readlink()
        xattrs = {
            key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)
        }
        seen[name] = (oct(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, content, xattrs)
    return seen


def odd(root: Path) -> Path:
    """Make one of everything that is hard to keep, below ``root``/odd."""
    top = root / "odd"
    (top / "deep" / ("d" * 120) / ("e" * 120)).mkdir(parents=True)
    (top / "deep" / ("d" * 120) / ("e" * 120) / ("f" * 200)).write_bytes(b"long name")
    (top / "new\nline").write_bytes(b"newline")
    (top / "späße ☃").write_bytes(b"unicode")
    Path(os.fsdecode(os.fsencode(top) + b"/not-\xff\xfe-utf8")).write_bytes(b"bytes")
    (top / "empty").write_bytes(b"")
    (top / "links").mkdir()
    (top / "links" / "to-file").symlink_to("../empty")
    (top / "links" / "far").symlink_to("x" * 300)
    (top / "links" / "bytes").symlink_to(os.fsdecode(b"../not-\xff\xfe-utf8"))
    (top / "links" / "dir").symlink_to("/odd/deep")
    (top / "a-first").write_bytes(b"shared")
    (top / "links" / "hard").hardlink_to(top / "a-first")
    with (top / "sparse").open("wb") as file:
        file.truncate(3 << 20)
        file.seek(1 << 20)
        file.write(b"island")
    attributes = top / "attributes"
    attributes.write_bytes(b"x")
    os.setxattr(attributes, "user.plain", b"text")
    os.setxattr(attributes, "user.binary", bytes(range(256)))
    os.setxattr(attributes, "user.with=sign%3D", b"=")
    os.setxattr(top / "links", "user.on-directory", b"\n")
    (top / "setgid").mkdir()
    (top / "setgid").chmod(0o3771)
    (top / "closed").mkdir()
    (top / "closed" / "key").write_bytes(b"k")
    (top / "closed" / "key").chmod(0o400)
    (top / "closed").chmod(0o500)
    (top / "before-1970").write_bytes(b"old")
    os.utime(top / "before-1970", ns=(-1_500_000_000, -1_500_000_000))
    os.utime(top / "empty", ns=(NANOSECONDS, NANOSECONDS))
    os.utime(top / "links" / "to-file", ns=(NANOSECONDS, NANOSECONDS), follow_symlinks=False)
    os.utime(top / "links", ns=(NANOSECONDS, NANOSECONDS))
    if os.geteuid() == 0:
        os.chown(top / "new\nline", 4_000_000_000, 123)
        os.chown(top / "links" / "far", 12, 13, follow_symlinks=False)
    return top

"""Who has which address: what the host, the cluster and DHCP servers say, ranges that overlap, one plan of it all."""

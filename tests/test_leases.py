"""Lease files and DHCP configurations as dnsmasq, Kea and ISC dhcpd write them, and as nobody should."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedr.addressing.leases import MAX_LEASES, Lease, dhcp_ranges, read_leases

DNSMASQ = """\
1795300000 aa:bb:cc:dd:ee:01 10.77.0.50 printer 01:aa:bb:cc:dd:ee:01
0 aa:bb:cc:dd:ee:02 10.77.0.51 * *
1795300000 06-aa:bb:cc:dd:ee:03 10.77.0.52 ring ff:01
duid 00:01:00:01:2a:2b:2c:2d:aa:bb:cc:dd:ee:ff
1795300000 12345678 fd00:77::50 camera 00:01:00:01:11:22:33:44
"""

KEA4 = """\
address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id
10.77.0.60,aa:bb:cc:dd:ee:01,,3600,1795300000,1,0,0,printer.lan.,0,,0
10.77.0.60,aa:bb:cc:dd:ee:01,,3600,1795303600,1,0,0,printer.lan.,0,,0
10.77.0.61,aa:bb:cc:dd:ee:02,,3600,1795300000,1,0,0,gone,0,,0
10.77.0.61,aa:bb:cc:dd:ee:02,,0,1795300000,1,0,0,gone,0,,0
10.77.0.62,aa:bb:cc:dd:ee:03,,3600,1795300000,1,0,0,expired,2,,0
10.77.0.63,,,86400,1795300000,1,0,0,,1,,0
10.77.0.64,aa:bb:cc:dd:ee:05,,3600,1795300000,1,0,0,a&#x2cb,0,,0
"""

KEA6 = """\
address,duid,valid_lifetime,expire,subnet_id,pref_lifetime,lease_type,iaid,prefix_len,fqdn_fwd,fqdn_rev,hostname,hwaddr,state
fd00:77::60,00:01:02,3600,1795300000,1,1800,0,7,128,0,0,camera,,0
fd00:78:1::,00:01:03,3600,1795300000,1,1800,2,8,48,0,0,router,,0
"""

ISC = r"""
# The format of this file is documented in the dhcpd.leases(5) manual page.
authoring-byte-order little-endian;
lease 10.77.0.70 {
  starts 0 2026/11/22 22:00:00;
  ends 0 2026/11/22 23:00:00;
  binding state active;
  next binding state free;
  hardware ethernet aa:bb:cc:dd:ee:01;
  uid "\001\252};\"";
  client-hostname "printer";
}
lease 10.77.0.71 {
  binding state active;
  hardware ethernet aa:bb:cc:dd:ee:02;
}
lease 10.77.0.71 {
  binding state free;
  hardware ethernet aa:bb:cc:dd:ee:02;
}
lease 10.77.0.70 {
  binding state active;
  hardware ethernet aa:bb:cc:dd:ee:09;
  client-hostname "scanner";
}
server-duid "\000\001";
"""

ISC6 = r"""
ia-na "\001\000camera" {
  cltt 0 2026/11/22 22:00:00;
  iaaddr fd00:77::70 {
    binding state active;
    preferred-life 375;
    max-life 600;
  }
  iaaddr fd00:77::71 {
    binding state expired;
  }
}
"""


def test_dnsmasq() -> None:
    """Both families, with and without a name, and a token ring: each client is known by its hardware or DUID."""
    assert read_leases(DNSMASQ).leases == (
        Lease("10.77.0.50", "aa:bb:cc:dd:ee:01", "printer"),
        Lease("10.77.0.51", "aa:bb:cc:dd:ee:02", ""),
        Lease("10.77.0.52", "06-aa:bb:cc:dd:ee:03", "ring"),
        Lease("fd00:77::50", "00:01:00:01:11:22:33:44", "camera"),
    )
    assert read_leases(DNSMASQ).unreadable == 0


def test_kea() -> None:
    """The last line for an address counts; released and reclaimed leases are none; a declined address stays visible."""
    assert read_leases(KEA4).leases == (
        Lease("10.77.0.60", "aa:bb:cc:dd:ee:01", "printer.lan"),
        Lease("10.77.0.63", "declined: another host answers there", ""),
        Lease("10.77.0.64", "aa:bb:cc:dd:ee:05", "a,b"),
    )
    assert read_leases(KEA6).leases == (
        Lease("fd00:77::60", "00:01:02", "camera"),
        Lease("fd00:78:1::/48", "00:01:03", "router"),
    )


def test_generations_of_kea() -> None:
    """A lease of an older generation lives until a newer one ends it."""
    old = KEA4.splitlines()[0] + "\n10.77.0.90,aa:bb:cc:dd:ee:0a,,3600,1,1,0,0,old,0,,0\n"
    old += "10.77.0.91,aa:bb:cc:dd:ee:0b,,3600,1,1,0,0,kept,0,,0\n"
    new = KEA4.splitlines()[0] + "\n10.77.0.90,aa:bb:cc:dd:ee:0a,,0,1,1,0,0,old,0,,0\n"
    assert [lease.name for lease in read_leases(old, new).leases] == ["kept"]


def test_isc() -> None:
    """The last block for an address counts, what is free is no lease, and quoted braces end nothing."""
    assert read_leases(ISC).leases == (Lease("10.77.0.70", "aa:bb:cc:dd:ee:09", "scanner"),)
    assert read_leases(ISC6).leases == (Lease("fd00:77::70", r"\001\000camera", ""),)


def test_when_a_lease_ends_does_not_show() -> None:
    """A renewal changes the file, but nothing of what is known from it."""
    assert read_leases(DNSMASQ.replace("1795300000", "1795303600")) == read_leases(DNSMASQ)
    assert read_leases(KEA4.replace("1795300000", "1795303600")) == read_leases(KEA4)
    assert read_leases(ISC.replace("23:00:00", "23:30:00")) == read_leases(ISC)


@pytest.mark.parametrize(
    ("text", "unreadable"),
    [
        ("", 0),
        ("\n\n", 0),
        ("certainly no lease file\n\0\1\2\n", 2),
        ("1795300000 aa:bb:cc:dd:ee:01 10.77.0.500 printer *\n", 1),
        ("soon aa:bb:cc:dd:ee:01 10.77.0.50 printer *\n", 1),
        ("address,hwaddr\n10.77.0.60,aa\n", 1),
        (KEA4.splitlines()[0] + "\n10.77.0.60,aa:bb:cc:dd:ee:01,,36", 0),
        (KEA4.splitlines()[0] + "\n10.77.0.60,aa:bb:cc:dd:ee:01,,36,1,1,0,0,x,nine,,0", 1),
        ("lease 10.77.0.70 {\n  binding state active;\n", 1),
        ("lease 10.77.0.999 {\n  binding state active;\n}\n}\n}\n", 1),
        ('ia-na "x" { iaaddr { } }', 0),
    ],
)
def test_garbage_is_counted(text: str, unreadable: int) -> None:
    """What makes no sense gives no lease of its own making, and is not passed over in silence."""
    told = read_leases(text)
    assert told.unreadable == unreadable
    assert {lease.address for lease in told.leases} <= {"10.77.0.60"}


@given(
    st.lists(st.sampled_from(["lease ", "10.0.0.1 ", "{", "}", ";", '"', "\\", "#", "\n", "ia-na ", "iaaddr ", "x"]))
)
def test_no_text_breaks_it(pieces: list[str]) -> None:
    """Whatever stands in a file, it is read to the end."""
    text = "".join(pieces)
    for told in (read_leases(text), read_leases(f"address,state\n{text}"), read_leases(f'lease 1.1.1.1 {{"{text}')):
        assert len({lease.address for lease in told.leases}) == len(told.leases)
    dhcp_ranges(text)


def test_giant_files_are_bounded() -> None:
    """A server that went wild does not take the memory of the node; that there was more is known."""
    text = "".join(f"1 aa:bb:cc:dd:ee:01 10.{n >> 16}.{n >> 8 & 255}.{n & 255} x *\n" for n in range(MAX_LEASES + 5))
    told = read_leases(text)
    assert (len(told.leases), told.more) == (MAX_LEASES, True)
    assert not read_leases(DNSMASQ).more


@pytest.mark.parametrize(
    "text",
    ["\n" * 300_000, '"\\' * 2_000_000, "/*" * 200_000 + '"pool"', 'lease 1.1.1.1 {"' * 50_000, "lease " * 200_000],
)
def test_time_grows_with_the_size_only(text: str) -> None:
    """Texts made to send a pattern back and forth are read like any other; a square of their size would never end."""
    read_leases(text, f"lease 1.1.1.1 {{\n{text}")
    dhcp_ranges(text)


def test_what_servers_give_out() -> None:
    """Ranges are found in the configuration of each server; what is commented out, static or a proxy's is none."""
    dnsmasq = """
dhcp-range=10.77.0.50,10.77.0.99,255.255.255.0,12h
dhcp-range = set:iot,10.78.0.50, 10.78.0.60, 12h   # of the cameras
#dhcp-range=10.79.0.50,10.79.0.60
dhcp-range=10.80.0.0,static
dhcp-range=10.81.0.0,proxy
dhcp-range=::1,::400,constructor:eth0,ra-names
dhcp-range=fd00:77::2,fd00:77::500,64,12h
"""
    assert dhcp_ranges(dnsmasq) == ("10.77.0.50-10.77.0.99", "10.78.0.50-10.78.0.60", "fd00:77::2-fd00:77::500")
    kea = """{ "Dhcp4": { "subnet4": [ { // one
      "subnet": "10.77.0.0/24", "pools": [ { "pool": "10.77.0.60 - 10.77.0.69" }, { "pool": "10.77.0.128/28" } ]
      # { "pool": "10.1.0.1 - 10.1.0.2" }
      /* { "pool": "10.2.0.1 - 10.2.0.2" } */
      } ], "hint": "http://kea/#x" } }"""
    assert dhcp_ranges(kea) == ("10.77.0.128/28", "10.77.0.60-10.77.0.69")
    isc = """
subnet 10.77.0.0 netmask 255.255.255.0 { range dynamic-bootp 10.77.0.70 10.77.0.79; option routers 10.77.0.1; }
subnet6 fd00:77::/64 { range6 fd00:77::100 fd00:77::200; range6 fd00:77:0:0:1::/80; }
# range 10.1.0.1 10.1.0.2;
subnet 10.78.0.0 netmask 255.255.255.0 { range 10.78.0.5; }
"""
    assert dhcp_ranges(isc) == ("10.77.0.70-10.77.0.79", "10.78.0.5", "fd00:77:0:0:1::/80", "fd00:77::100-fd00:77::200")
    assert dhcp_ranges("range slow fast;\ndhcp-range=x\n") == ()

"""Three hosts on one machine: network namespaces joined by a bridge, IPv4 and IPv6, with links that can be cut.

    with Hosts(3) as hosts:                 needs root; Hosts.usable() says why it cannot be
        hosts.address(0), hosts.address(0, 6)
        hosts.argv(1, [...])                the command in namespace 1
        hosts.drop(1, 2)                    packets between 1 and 2 get lost silently
        hosts.drop(1)                       all of 1's
        hosts.lose(1, 5)                    5 % of 1's, at random
        hosts.heal()
"""
import os
import shutil
import subprocess


def run(*argv):
    subprocess.run(argv, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


class Hosts:
    """Namespaces m<pid>-0, -1, ..; gone when the block ends."""

    def __init__(self, count):
        self.count, self.name = count, f"m{os.getpid() % 100000}"

    @staticmethod
    def usable():
        """None, or why there can be no namespaces here."""
        if os.geteuid() != 0:
            return "network namespaces need root"
        for tool in ("ip", "nft"):
            if shutil.which(tool) is None:
                return f"there is no program '{tool}'"
        probe = f"mprobe{os.getpid()}"
        done = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
        if done.returncode != 0:
            return "network namespaces cannot be made here: " + done.stderr.strip()
        run("ip", "netns", "del", probe)
        return None

    def __enter__(self):
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _build(self):
        self.bridge = self.space("b")
        run("ip", "netns", "add", self.bridge)
        self.inside("b", "ip", "link", "add", "br0", "type", "bridge")
        self.inside("b", "ip", "link", "set", "br0", "up")
        for i in range(self.count):
            run("ip", "netns", "add", self.space(i))
            run("ip", "link", "add", "eth0", "netns", self.space(i), "type", "veth", "peer", "name", f"p{i}",
                "netns", self.bridge)
            self.inside("b", "ip", "link", "set", f"p{i}", "master", "br0")
            self.inside("b", "ip", "link", "set", f"p{i}", "up")
            self.inside(i, "ip", "addr", "add", f"{self.address(i)}/24", "dev", "eth0")
            self.inside(i, "ip", "-6", "addr", "add", f"{self.address(i, 6)}/64", "dev", "eth0", "nodad")
            self.inside(i, "ip", "link", "set", "lo", "up")
            self.inside(i, "ip", "link", "set", "eth0", "up")

    def __exit__(self, *_):
        for which in (*range(self.count), "b"):
            subprocess.run(["ip", "netns", "del", self.space(which)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def space(self, which):
        return f"{self.name}-{which}"

    def inside(self, which, *argv):
        run(*self.argv(which, argv))

    def argv(self, which, argv):
        return ["ip", "netns", "exec", self.space(which), *argv]

    def address(self, i, version=4):
        return f"10.77.0.{i + 1}" if version == 4 else f"fd77::{i + 1}"

    def drop(self, one, other=None, port=None):
        """Packets of `one` to and from `other` (or all; or to that TCP port of `one`) are lost without a word."""
        rules = ["add table inet cut", "add chain inet cut in { type filter hook input priority 0; }",
                 "add chain inet cut out { type filter hook output priority 0; }"]
        if port is not None:
            rules.append(f"add rule inet cut in iifname eth0 tcp dport {port} drop")
        elif other is None:
            rules += ["add rule inet cut in iifname eth0 drop", "add rule inet cut out oifname eth0 drop"]
        else:
            for family, version in (("ip", 4), ("ip6", 6)):
                rules.append(f"add rule inet cut in {family} saddr {self.address(other, version)} drop")
                rules.append(f"add rule inet cut out {family} daddr {self.address(other, version)} drop")
        for rule in rules:
            self.inside(one, "nft", *rule.replace("{", "{ ").split())

    def lose(self, one, percent):
        """So many of the packets that come to or leave `one` are lost, at random."""
        for rule in ("add table inet loss", "add chain inet loss in { type filter hook input priority 0; }",
                     "add chain inet loss out { type filter hook output priority 0; }",
                     f"add rule inet loss in iifname eth0 numgen random mod 100 < {percent} drop",
                     f"add rule inet loss out oifname eth0 numgen random mod 100 < {percent} drop"):
            self.inside(one, "nft", *rule.replace("{", "{ ").split())

    def heal(self):
        for i in range(self.count):
            for table in ("cut", "loss"):
                subprocess.run(self.argv(i, ["nft", "delete", "table", "inet", table]), stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)

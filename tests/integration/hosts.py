"""Three hosts on one machine: network namespaces joined by a bridge, IPv4 and IPv6, with links that can be cut.

    with Hosts(3) as hosts:                 needs root; Hosts.usable() says why it cannot be
        hosts.address(0), hosts.address(0, 6)
        hosts.argv(1, [...])                the command in namespace 1
        hosts.drop(1, 2)                    packets between 1 and 2 get lost silently
        hosts.drop(1)                       all of 1's
        cut = hosts.lose(1, 5)              5 % of 1's, at random
        hosts.heal(cut), hosts.heal()       one of these, or all
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
        self.cuts, self.made = {}, 0  # table -> the host that has it

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
        if port is not None:
            return self._cut(one, [f"in iifname eth0 tcp dport {port} drop"])
        if other is None:
            return self._cut(one, ["in iifname eth0 drop", "out oifname eth0 drop"])
        return self._cut(one, [f"{chain} {family} {whose} {self.address(other, version)} drop"
                               for family, version in (("ip", 4), ("ip6", 6))
                               for chain, whose in (("in", "saddr"), ("out", "daddr"))])

    def lose(self, one, percent):
        """So many of the packets that come to or leave `one` are lost, at random."""
        dice = f"numgen random mod 100 < {percent} drop"
        return self._cut(one, [f"in iifname eth0 {dice}", f"out oifname eth0 {dice}"])

    def _cut(self, one, rules):
        """The cut, for heal(). Each has a table of its own, so that they can overlap."""
        self.made += 1
        table = f"cut{self.made}"
        words = [f"add table inet {table}",
                 *(f"add chain inet {table} {chain} {{ type filter hook {hook} priority 0; }}"
                   for chain, hook in (("in", "input"), ("out", "output"))),
                 *(f"add rule inet {table} {rule}" for rule in rules)]
        self._nft(one, "\n".join(words), check=True)
        self.cuts[table] = one
        return table

    def heal(self, cut=None):
        """That cut, or all."""
        for table in [cut] if cut else list(self.cuts):
            one = self.cuts.pop(table, None)
            if one is not None:
                self._nft(one, f"delete table inet {table}", check=False)

    def _nft(self, one, words, check):
        subprocess.run(self.argv(one, ["nft", "-f", "-"]), input=words + "\n", text=True, check=check,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)

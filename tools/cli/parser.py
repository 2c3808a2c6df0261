"""The command line's grammar: nouns, verbs, options, help texts, and what to say of mistakes.

`main` builds it for each run; the module of a noun is loaded only when the noun is used, which keeps
`kvorum --help` fast. Words are kept on the way so that shell completion can be made from the same tree.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from tools.cli.context import Context

RunVerb = Callable[[argparse.Namespace, "Context"], Awaitable[int]]

OUTPUTS = ("table", "json", "yaml")

NOUNS: dict[str, tuple[str, str]] = {
    "init": ("tools.cli.mesh", "make a cluster of this host"),
    "join": ("tools.cli.mesh", "make this host a member of a cluster"),
    "leave": ("tools.cli.mesh", "take this host out of its cluster"),
    "status": ("tools.cli.mesh", "show whether the cluster is well"),
    "health": ("tools.cli.health", "whether the cluster can take a failure, and what to do if not"),
    "ha": ("tools.cli.ha", "switch failover off for work on the network, and choose its times"),
    "members": ("tools.cli.member", "who votes, how far each host is, and whether it is well"),
    "member": ("tools.cli.member", "the same as members"),
    "vip": ("tools.cli.vip", "the one address at which the cluster is managed, whoever leads"),
    "arbitration": (
        "tools.cli.arbitration",
        "addresses that every host pings, for a veto on the VIP",
    ),
    "token": ("tools.cli.token", "single-use tokens for hosts that shall join"),
    "login": ("tools.cli.login", "log in from elsewhere"),
    "logout": ("tools.cli.login", "end the session of this machine"),
    "whoami": ("tools.cli.login", "show who the cluster takes you for"),
    "account": ("tools.cli.account", "people and programs that may log in"),
    "role": ("tools.cli.role", "what accounts and tokens may do"),
    "audit": ("tools.cli.audit", "who did what"),
    "access-token": ("tools.cli.access_token", "tokens of people and programs for the API"),
    "access-key": ("tools.cli.access_key", "keys with which programs of others sign requests"),
    "certificate": ("tools.cli.certificate", "the certificate of the HTTPS API"),
    "secrets": ("tools.cli.secrets", "the key by which the cluster's secrets are sealed"),
    "callback-key": ("tools.cli.callback_key", "the key that signs what callbacks bring"),
    "data-center": ("tools.cli.places", "name spaces that hold clusters"),
    "cluster": ("tools.cli.places", "groups of hosts among which VMs move"),
    "host": ("tools.cli.host", "servers that run VMs"),
    "rule": ("tools.cli.placement_rule", "placement rules: VMs apart, together, on or off hosts"),
    "bmc": ("tools.cli.bmc", "management boards that switch hosts on and off"),
    "drill": ("tools.cli.drill", "rehearsed failures, and what they showed"),
    "vm": ("tools.cli.vm", "virtual machines"),
    "image": ("tools.cli.image", "disk templates"),
    "disk": ("tools.cli.disk", "virtual disks"),
    "snapshot": ("tools.cli.snapshot", "what disks held at a moment, to go back to"),
    "data-storage": ("tools.cli.data_storage", "places where disks live"),
    "image-storage": ("tools.cli.attaching", "places where images live"),
    "switch": ("tools.cli.attaching", "distributed switches, which port groups are on"),
    "port-group": ("tools.cli.port_group", "VXLAN networks of VMs"),
    "nic": ("tools.cli.nic", "network cards of VMs"),
    "security-group": ("tools.cli.security_group", "firewalls of network cards"),
    "task": ("tools.cli.task", "long work: progress, result, cancelling"),
    "event": ("tools.cli.event", "what happened"),
    "tag": ("tools.cli.tag", "names on resources, to find them and to say who may do what"),
    "plugin": ("tools.cli.plugin", "what installed packages add to the hosts' agents"),
    "workflow": ("tools.cli.workflow", "run workflows of plug-ins"),
    "query": ("tools.cli.query", "ask for any resources by any of their attributes"),
    "resource": ("tools.cli.resource", "resources of any kind, also of those that plug-ins bring"),
    "explain": ("tools.cli.explain", "what a kind of resource or an attribute is"),
    "state": ("tools.cli.state", "back up, check and restore all that the cluster knows"),
    "recover": ("tools.cli.recover", "the way out when voters or a host's state were destroyed"),
    "api": ("tools.cli.api", "send any request to the API"),
    "completion": ("tools.cli.completion", "completion for your shell"),
}

ROOT_EXAMPLES = """\
  kvorum init                                   make a cluster of this host
  kvorum token create                           then, on each other host: kvorum join TOKEN
  kvorum image upload debian --file debian.qcow2
  kvorum vm create web1 --image debian --ssh-key ~/.ssh/id_ed25519.pub
  kvorum vm list -o json

On a host, as root, no login is needed. From elsewhere set KVORUM_ADDRESS=host1,host2 (any hosts of the
cluster) and KVORUM_CA=ca.pem (/var/lib/kvorum/identity/ca.pem of any host), then `kvorum login NAME`; or
set KVORUM_TOKEN, or put the token into ~/.config/kvorum/token (mode 0600).
`kvorum COMMAND VERB --help` explains each command.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 cluster unavailable.
"""


class UsageError(Exception):
    """The command line makes no sense; the text says why and what to do."""


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises `UsageError`, guesses what was meant and remembers its words."""

    def __init__(self, **options: Any) -> None:
        self.arguments: list[argparse.Action] = []
        self.names_of: dict[str, str] = {}
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)

    def add_argument(self, *names: Any, names_of: str = "", **options: Any) -> argparse.Action:
        """Add an argument; `names_of` is the plural whose names complete it, e.g. `vms`."""
        action = super().add_argument(*names, **options)
        self.arguments.append(action)
        if names_of:
            self.names_of[action.dest] = names_of
        return action

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")

    def refuse_unknown(self, extras: Sequence[str]) -> NoReturn:
        """Raise for arguments that no option or position took, with a guess of what was meant."""
        first = extras[0]
        options = [name for action in self.arguments for name in action.option_strings]
        if first.startswith("-"):
            self.error(f"unknown option {first.partition('=')[0]!r}{_guess(first, options)}")
        self.error(f"unexpected argument {first!r}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        if action.dest in {"noun", "verb", "subverb"}:
            guess = _guess(str(value), choices)
            options = "" if guess or action.dest == "noun" else f": use {', '.join(choices)}"
            self.error(f"unknown command {value!r}{guess}{options}")
        raise argparse.ArgumentError(action, f"{value!r} is none of {', '.join(choices)}")


class Verbs:
    """The verbs of a noun, as the noun's module adds them."""

    def __init__(self, parser: Parser, dest: str = "verb") -> None:
        self._subparsers = parser.add_subparsers(dest=dest, metavar="VERB", title="verbs")
        self.parsers: dict[str, Parser] = {}
        self.groups: dict[str, Verbs] = {}

    def add(
        self, name: str, run: RunVerb, summary: str, *, example: str = "", note: str = ""
    ) -> Parser:
        """Add a verb and return its parser for arguments."""
        parser = self._subparsers.add_parser(
            name, help=summary, description=_description(summary, note), epilog=_epilog(example)
        )
        finish(parser, run)
        self.parsers[name] = parser
        return parser

    def add_group(self, name: str, summary: str) -> Verbs:
        """Add a word that has verbs of its own, e.g. `security-group rule`."""
        parser = self._subparsers.add_parser(
            name, help=summary, description=_description(summary, "")
        )
        group = self.groups[name] = Verbs(parser, dest="subverb")
        self.parsers[name] = parser
        return group


class Root:
    """The whole grammar; `loaded` nouns have all their words."""

    def __init__(self) -> None:
        self.parser = Parser(
            prog="kvorum",
            description="Run virtual machines on a cluster of hosts that need no manager.",
            epilog="examples:\n" + ROOT_EXAMPLES,
        )
        add_common(self.parser, suppress=False)
        self.parser.add_argument("--version", action="store_true", help="show the version and exit")
        self._subparsers = self.parser.add_subparsers(
            dest="noun", metavar="COMMAND", title="commands"
        )
        self.nouns = {
            noun: self._subparsers.add_parser(noun, help=summary)
            for noun, (_, summary) in NOUNS.items()
        }
        self.verbs: dict[str, Verbs] = {}

    def load(self, nouns: Iterable[str]) -> None:
        """Give nouns their arguments; unknown ones are left to `parse`."""
        for noun in dict.fromkeys(nouns):
            if noun in NOUNS:
                module = importlib.import_module(NOUNS[noun][0])
                self.nouns[noun].description = _description(NOUNS[noun][1], "")
                module.ADD[noun](self, self.nouns[noun])

    def verbs_of(self, noun: str) -> Verbs:
        """Return the noun's verbs, to add to."""
        return self.verbs.setdefault(noun, Verbs(self.nouns[noun]))

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Return the parsed arguments.

        Raises:
            UsageError: they make no sense.
        """
        self.load(word for word in argv if word in NOUNS)
        swapped = self._verb_first(argv)
        if swapped:
            raise UsageError(f"the noun comes first: did you mean 'kvorum {swapped}'?")
        args, extras = self.parser.parse_known_args(argv)
        if extras:
            leaf = getattr(args, "leaf", self.parser)
            assert isinstance(leaf, Parser), "set by finish()"
            leaf.refuse_unknown(extras)
        return args

    def _verb_first(self, argv: Sequence[str]) -> str:
        words = [word for word in argv if not word.startswith("-")][:2]
        if len(words) < 2 or words[0] in NOUNS:
            return ""
        verbs = self.verbs.get(words[1])
        return f"{words[1]} {words[0]}" if verbs and words[0] in verbs.parsers else ""


def finish(parser: Parser, run: RunVerb, *, example: str = "", note: str = "") -> None:
    """Make a parser the end of a command: what runs it, and the options that every command has."""
    parser.set_defaults(run=run, leaf=parser)
    add_common(parser, suppress=True)
    if note and parser.description:
        parser.description = f"{parser.description}\n\n{note}"
    if example:
        parser.epilog = _epilog(example)


def add_common(parser: Parser, *, suppress: bool) -> None:
    """Add what every command understands, before or after its noun."""
    default = argparse.SUPPRESS if suppress else "table"
    parser.add_argument(
        "-o", "--output", choices=OUTPUTS, default=default, help="how to print (default: table)"
    )
    parser.add_argument(
        "--quiet",
        action="store_true",
        default=argparse.SUPPRESS if suppress else False,
        help="show no progress",
    )


def add_wait(parser: Parser) -> None:
    """Add --no-wait, for commands that start a task."""
    parser.add_argument(
        "--no-wait",
        dest="wait",
        action="store_false",
        help="return as soon as the work is accepted and print its task",
    )


def add_callback(parser: Parser) -> None:
    """Add --callback-url, for commands that start a task."""
    parser.add_argument(
        "--callback-url",
        default="",
        metavar="URL",
        help="post the result there, signed, when the work has ended",
    )


def add_yes(parser: Parser) -> None:
    """Add --yes, for commands that ask first on a terminal."""
    parser.add_argument("--yes", action="store_true", help="don't ask")


def _description(summary: str, note: str) -> str:
    text = summary[:1].upper() + summary[1:] + "."
    return f"{text}\n\n{note}" if note else text


def _epilog(example: str) -> str | None:
    if not example:
        return None
    lines = (f"  {line.strip()}" for line in example.strip().splitlines())
    return "examples:\n" + "\n".join(lines)


def _guess(word: str, choices: Iterable[str]) -> str:
    import difflib

    word = word.partition("=")[0]
    near = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f": did you mean {near[0]!r}?" if near else ""

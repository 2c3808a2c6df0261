"""`kvorum completion`: a script that completes commands, options and names in bash and zsh.

The script is made from the same grammar that parses commands, so that they never differ. Names of
resources are asked of the cluster when Tab is pressed.
"""

from __future__ import annotations

from argparse import Namespace

from tools.cli.context import Context
from tools.cli.parser import Parser, Root, UsageError, Verbs, finish

SHELLS = ("bash", "zsh")
NAMES = "names"

# `at`, because `path` is the search path in zsh.
_SCRIPT = """\
{head}_kvorum_names() {{
    COMPREPLY=($(compgen -W "$(kvorum completion names --of "$1" 2>/dev/null)" -- "$cur"))
}}
_kvorum() {{
    local cur="${{COMP_WORDS[COMP_CWORD]}}" prev="${{COMP_WORDS[COMP_CWORD-1]}}" at="" word i
    for ((i = 1; i < COMP_CWORD; i++)); do
        word="${{COMP_WORDS[i]}}"
        case "$at $word" in
{walks}
        esac
    done
    case "$at $prev" in
{values}
    esac
    case "$at" in
{words}
    esac
}}
complete -o default -F _kvorum kvorum
"""

_ZSH_HEAD = """\
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
autoload -Uz bashcompinit && bashcompinit
"""


async def complete(args: Namespace, ctx: Context) -> int:
    """Print a completion script, or the names that the script asks for."""
    if args.shell == NAMES:
        page = await ctx.client.list_all(args.of, fields=("name",))
        for item in page.items:
            ctx.write(item.text("name"))
        return 0
    raise UsageError("completion scripts are printed before the cluster is asked")


def script(shell: str) -> str:
    """Return the script of a shell."""
    root = Root()
    root.load(root.nouns)
    walks: list[str] = []
    values: list[str] = []
    words = [_words_line("", [*root.nouns, *_options(root.parser)])]
    for noun, parser in root.nouns.items():
        walks.append(_walk_line("", noun))
        verbs = root.verbs.get(noun)
        if verbs is None:
            _leaf(f" {noun}", parser, values, words)
        else:
            _verbs(f" {noun}", verbs, walks, values, words)
    head = _ZSH_HEAD if shell == "zsh" else ""
    return _SCRIPT.format(
        head=head, walks="\n".join(walks), values="\n".join(values), words="\n".join(words)
    )


def _verbs(path: str, verbs: Verbs, walks: list[str], values: list[str], words: list[str]) -> None:
    words.append(_words_line(path, list(verbs.parsers)))
    for verb, parser in verbs.parsers.items():
        walks.append(_walk_line(path, verb))
        group = verbs.groups.get(verb)
        if group is None:
            _leaf(f"{path} {verb}", parser, values, words)
        else:
            _verbs(f"{path} {verb}", group, walks, values, words)


def _leaf(path: str, parser: Parser, values: list[str], words: list[str]) -> None:
    positional_names = ""
    choices: list[str] = []
    for action in parser.arguments:
        names_of = parser.names_of.get(action.dest, "")
        for option in action.option_strings:
            if names_of:
                values.append(f'        "{path} {option}") _kvorum_names {names_of}; return ;;')
            elif action.choices is not None:
                listed = " ".join(str(choice) for choice in action.choices)
                values.append(
                    f'        "{path} {option}") COMPREPLY=($(compgen -W "{listed}" -- "$cur")); return ;;'
                )
        if not action.option_strings:
            positional_names = positional_names or names_of
            choices.extend(str(choice) for choice in action.choices or () if choice != NAMES)
    first = ""
    if positional_names:
        first = f"_kvorum_names {positional_names}; "
    elif choices:
        first = _offer(choices) + "; "
    then = f"[[ $cur == -* ]] || {{ {first}return; }}; " if first else ""
    words.append(f'        "{path}") {then}{_offer(_options(parser))} ;;')


def _options(parser: Parser) -> list[str]:
    return [
        option
        for action in parser.arguments
        for option in action.option_strings
        if option.startswith("--")
    ]


def _walk_line(path: str, word: str) -> str:
    return f'            "{path} {word}") at="{path} {word}" ;;'


def _words_line(path: str, words: list[str]) -> str:
    return f'        "{path}") {_offer(words)} ;;'


def _offer(words: list[str]) -> str:
    return f'COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$cur"))'


def _add(root: Root, parser: Parser) -> None:
    parser.add_argument("shell", metavar="SHELL", choices=(*SHELLS, NAMES), help="bash or zsh")
    parser.add_argument("--of", default="vms", metavar="PLURAL", help="for the script's own use")
    finish(
        parser,
        complete,
        example='eval "$(kvorum completion bash)"\n'
        "kvorum completion bash > /etc/bash_completion.d/kvorum\n"
        'eval "$(kvorum completion zsh)"',
    )


ADD = {"completion": _add}

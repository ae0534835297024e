"""The `pathzoo` command. Imports nothing heavy before a subcommand needs it: `pathzoo --help` answers at once."""

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from pathzoo._version import __version__
from pathzoo.cli_predict import add_predict
from pathzoo.errors import PathzooError

#: 128 + SIGINT, as shells have it.
EXIT_INTERRUPTED = 130
_LAUNCHERS = ("none", "pytorch", "slurm")
_TASKS = ("classification", "segmentation", "detection", "representation", "translation")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand.

    Returns:
        The exit code: 0 all good; 2 bad usage or input, nothing written; 3 partial output, listed in predict_run.json;
        4 some inputs of a batch failed; 75 preempted, resume (see pathzoo.engine.hooks.preemption).
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] == ["publish"]:  # has a parser of its own, which needs more than --help should load
            from pathzoo.zoo.publish_command import main as publish

            return publish(words[1:])
        arguments = _parser().parse_args(words)
        return arguments.run(arguments) or 0
    except PathzooError as error:
        print(f"pathzoo: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("pathzoo: interrupted; nothing half-written was left", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader, `head` say, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def one_line(error: BaseException) -> str:
    """The error's own message, also where a data loader's worker wrapped it in its traceback."""
    text = str(error).strip()
    if "\n" in text:
        text = text.splitlines()[-1]
        text = text.split(f"{type(error).__name__}: ", 1)[-1]
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pathzoo", description="A computational-pathology model zoo: train, publish, verify, predict whole slides."
    )
    parser.add_argument("--version", action="version", version=f"pathzoo {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_add_list, _add_info, add_predict, _add_train, _add_test, _add_publish, _add_verify, _add_doctor):
        add(commands)
    return parser


def _command(commands: Any, name: str, run: Callable, help_text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=help_text, description=help_text)
    parser.set_defaults(run=run)
    return parser


def _add_list(commands: Any) -> None:
    parser = _command(commands, "list", _run_list, "List the models of the zoo, or with --components what configs use.")
    parser.add_argument("pattern", nargs="?", help="shell pattern on names, such as 'breakhis*'")
    parser.add_argument("--task", choices=_TASKS)
    parser.add_argument("--organ")
    parser.add_argument("--mpp", type=float, help="only models that work at this resolution (microns per pixel)")
    parser.add_argument("--commercial", action="store_true", help="only models whose licence allows commercial use")
    parser.add_argument("--components", action="store_true", help="list registered components: kind, name, origin")
    parser.add_argument("--configs", action="store_true", help="list the packaged configs")
    parser.add_argument("--json", action="store_true")


def _run_list(arguments: argparse.Namespace) -> None:
    if arguments.components:
        from pathzoo.plugins import components

        rows = [{"kind": c.kind, "name": c.name, "origin": c.origin} for c in components()]
        _show(rows, ("kind", "name", "origin"), arguments.json)
    elif arguments.configs:
        from pathzoo.paths import configs_root, leaf_configs

        rows = [{"config": str(file.relative_to(configs_root()))} for file in leaf_configs()]
        _show(rows, ("config",), arguments.json)
    else:
        from pathzoo.zoo.load import list_models

        with warnings.catch_warnings(record=True) as left_out:
            warnings.simplefilter("always")
            rows = list_models(
                arguments.pattern, arguments.task, arguments.organ, arguments.mpp, arguments.commercial or None
            )
        for warning in left_out:
            print(f"pathzoo: {warning.message}", file=sys.stderr)
        _show(rows, ("name", "version", "task", "organ", "mpp", "licence"), arguments.json)


def _add_info(commands: Any) -> None:
    parser = _command(commands, "info", _run_info, "Show one model: what it takes, was made from, and scores.")
    parser.add_argument("name", help="NAME, NAME@VERSION or a model's folder")
    parser.add_argument("--json", action="store_true", help="the whole manifest, and the ancestry")


def _run_info(arguments: argparse.Namespace) -> None:
    from pathzoo.plugins import load_plugins
    from pathzoo.zoo.ancestry import ancestry, format_ancestry
    from pathzoo.zoo.card import render_card
    from pathzoo.zoo.load import find_model
    from pathzoo.zoo.verify import require_verified

    load_plugins()
    folder = find_model(arguments.name)
    manifest = require_verified(folder)
    ancestors = ancestry(folder, manifest)
    if arguments.json:
        content = manifest.model_dump(mode="json") | {"ancestry": [one.to_json() for one in ancestors]}
        print(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        print(f"{render_card(manifest)}\n{format_ancestry(ancestors)}")


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="a config file, or its path below the packaged configs")
    parser.add_argument("--work-dir", help="where the run lies; work_dirs/CONFIG by default")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="set keys of the config")
    parser.add_argument("--launcher", choices=_LAUNCHERS, default="none")
    parser.add_argument("--local-rank", "--local_rank", type=int, default=None, help=argparse.SUPPRESS)


def _add_train(commands: Any) -> None:
    parser = _command(commands, "train", _run_train, "Train by a config; the same as tools/train.py.")
    _add_run_arguments(parser)
    parser.add_argument("--resume", nargs="?", const=True, default=False, metavar="CHECKPOINT", help="go on from here")
    parser.add_argument("--amp", action="store_true", help="mixed precision (GPU)")
    parser.add_argument("--no-validate", action="store_true")
    parser.add_argument("--auto-scale-lr", action="store_true", help="scale the learning rate by the global batch size")
    parser.add_argument("--seed", type=int)


def _run_train(arguments: argparse.Namespace) -> None:
    from pathzoo.apis.options import parse_options
    from pathzoo.apis.train import train

    train(
        arguments.config,
        arguments.work_dir,
        resume=arguments.resume,
        amp=arguments.amp,
        no_validate=arguments.no_validate,
        auto_scale_lr=arguments.auto_scale_lr,
        options=parse_options(arguments.cfg_options),
        launcher=arguments.launcher,
        seed=arguments.seed,
    )


def _add_test(commands: Any) -> None:
    parser = _command(commands, "test", _run_test, "Test a checkpoint by a config; the same as tools/test.py.")
    _add_run_arguments(parser)
    parser.add_argument("checkpoint", nargs="?", help=".pth file; the run's best by validation, else its newest")


def _run_test(arguments: argparse.Namespace) -> None:
    from pathzoo.apis.options import parse_options
    from pathzoo.apis.test import test
    from pathzoo.evaluation.table import format_rows

    rows = test(
        arguments.config,
        arguments.checkpoint,
        arguments.work_dir,
        options=parse_options(arguments.cfg_options),
        launcher=arguments.launcher,
    )
    _print_table(format_rows(rows))


def _add_publish(commands: Any) -> None:
    commands.add_parser("publish", help="Publish a trained model; the same as tools/publish_model.py.")


def _add_verify(commands: Any) -> None:
    parser = _command(commands, "verify", _run_verify, "Check published models: digests, config, identifiers.")
    parser.add_argument("names", nargs="+", metavar="NAME", help="NAME, NAME@VERSION or a model's folder")
    parser.add_argument("--golden", action="store_true", help="also run the model on its golden inputs")
    parser.add_argument("--json", action="store_true")


def _run_verify(arguments: argparse.Namespace) -> int:
    from pathzoo.plugins import load_plugins
    from pathzoo.zoo.load import find_model
    from pathzoo.zoo.verify import verify_model

    load_plugins()
    reports = []
    for name in arguments.names:
        try:
            problems = [str(problem) for problem in verify_model(find_model(name), golden=arguments.golden).problems]
        except PathzooError as error:  # an unknown name; the others are still checked
            problems = [one_line(error)]
        reports.append({"model": name, "ok": not problems, "problems": problems})
    if arguments.json:
        print(json.dumps(reports, indent=2))
    else:
        for report in reports:
            print(f"{report['model']}: {'verified' if report['ok'] else 'REFUSED'}")
            for problem in report["problems"]:
                print(f"  {problem}")
    return 0 if all(report["ok"] for report in reports) else PathzooError.exit_code


def _add_doctor(commands: Any) -> None:
    parser = _command(commands, "doctor", _run_doctor, "Check this environment; every fault comes with its remedy.")
    parser.add_argument("--json", action="store_true")


def _run_doctor(arguments: argparse.Namespace) -> int:
    from pathzoo.doctor import examine, report

    checks = examine()
    print(json.dumps([check.as_dict() for check in checks], indent=2) if arguments.json else report(checks))
    return 0 if all(check.ok for check in checks) else PathzooError.exit_code


def _show(rows: list[dict], columns: Sequence[str], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        # Text, not str: a bracket in a name is no markup.
        table.add_row(*(Text("" if row.get(column) is None else str(row[column])) for column in columns))
    _print_table(table)


def _print_table(table: Any) -> None:
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 240).print(table)  # a file or a pipe gets whole names


if __name__ == "__main__":
    sys.exit(main())

"""The text of a new config.yaml. What it may hold is the business of `nerve.config`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import yaml


def config_text(config: Mapping[str, object], head: Sequence[str]) -> str:
    """YAML with the keys in their order, below `head` as a comment; read back, it is `config`."""
    # A title of another tool may hold a line break, which would end the comment.
    comment = "".join(f"# {' '.join(line.split())}".rstrip() + "\n" for line in head)
    if not config:
        return comment
    body = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=100)
    return comment + body

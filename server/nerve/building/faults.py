"""What can go wrong with files that `nerve build` makes, as facts and a sentence."""

from __future__ import annotations

from nerve.errors import NerveError


class BuildFailed(NerveError):
    """A file cannot be built; `detail` says why and what helps."""

    reason = "build_failed"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


class BuiltFileInvalid(NerveError):
    """A file is not one that a build made, or is not whole any more."""

    reason = "built_file_invalid"

    def __init__(self, path: str, detail: str) -> None:
        super().__init__(path, detail)
        self.path, self.detail = path, detail

    def __str__(self) -> str:
        return f"{self.path}: {self.detail}"

"""The native marker: how a label says that it is for this kind of fleet."""

from __future__ import annotations

from runsfleet_runtime.labels.model import MARKER

# a run id of GitHub's, or one made unique for each job of a matrix
_MAX_RUN_ID_CHARS = 64
_RUN_ID_CURE = (
    f"write {MARKER}/key=value, or {MARKER}=${{{{ github.run_id }}}}/key=value "
    "(letters, digits, -, _ and .)"
)


def is_native(label: str) -> bool:
    """Tell whether a label is written for runsfleet, in whatever case.

    Example:
        >>> is_native("Runs-Fleet/cpu=4"), is_native("runs-fleet-2")
        (True, False)
    """
    return label[: len(MARKER)].lower() == MARKER and label[len(MARKER) :][:1] in {"", "/", "="}


def spec_text(label: str) -> str | tuple[str, str]:
    """Return what follows the marker of a native label and its run id.

    The run id only makes the label unique, so that no other job's runner fits; its value is not
    used, because the webhook knows the run.

    Returns:
        The text, or a reason why there is none such and a cure.

    Example:
        >>> spec_text("runs-fleet=123/cpu=4")
        'cpu=4'
    """
    rest = label[len(MARKER) :]
    if rest.startswith("="):
        run_id, slash, text = rest[1:].partition("/")
        plain = run_id.replace("-", "").replace("_", "").replace(".", "")
        if not (plain.isascii() and plain.isalnum() and len(run_id) <= _MAX_RUN_ID_CHARS):
            return f"after {MARKER}= a run id is expected", _RUN_ID_CURE
    else:
        slash, text = rest[:1], rest[1:]
    if slash and not text:
        return "nothing follows the last /", "drop it, or write key=value after it"
    return text

"""Message texts of packages that rosbags' typestores lack, beside this file as ``definitions/<package>/<kind>/``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rosbags.typesys.msg import get_types_from_msg

if TYPE_CHECKING:
    from rosbags.interfaces.typing import Typesdict

DEFINITIONS = Path(__file__).parent / "definitions"
SERVICE_PARTS = ("Request", "Response")


def own_types() -> Typesdict:
    """Parsed definitions of the bundled texts; a service gives ``<name>_Request`` and ``<name>_Response``."""
    types: Typesdict = {}
    for path in sorted(DEFINITIONS.glob("*/msg/*.msg")):
        types.update(get_types_from_msg(path.read_text("utf-8"), f"{path.parts[-3]}/msg/{path.stem}"))
    for path in sorted(DEFINITIONS.glob("*/srv/*.srv")):
        types.update(_service(f"{path.parts[-3]}/srv/{path.stem}", path.read_text("utf-8")))
    return types


def _service(name: str, text: str) -> Typesdict:
    """Request and response of a service, which the text separates by a line of three dashes.

    The parser knows messages only and would file them under ``msg``; so the parts are renamed.
    """
    lines = text.splitlines()
    middle = lines.index("---")
    types: Typesdict = {}
    for part, body in zip(SERVICE_PARTS, (lines[:middle], lines[middle + 1 :]), strict=True):
        (definition,) = get_types_from_msg("\n".join(body), name.replace("/srv/", "/msg/")).values()
        types[f"{name}_{part}"] = definition
    return types

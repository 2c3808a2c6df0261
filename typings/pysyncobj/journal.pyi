from typing import Any

dumps: Any
loads: Any
to_bytes: Any

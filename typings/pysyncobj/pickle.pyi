from typing import Any

dumps: Any
loads: Any
dump: Any
load: Any
to_bytes: Any

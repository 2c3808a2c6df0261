from typing import Any

gzip: Any
open: Any
atomicReplace: Any

from typing import Any

class SyncObjConf:
    def __init__(self, **kwargs: Any) -> None: ...

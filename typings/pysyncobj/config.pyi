from typing import Any

class SyncObjConf:
    def __init__(self, **kwargs: Any) -> None: ...

class SERIALIZER_STATE:
    NOT_SERIALIZING: int

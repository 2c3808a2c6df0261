# What tools.lab.glass uses of fusepy 3.0.1 (Debian's python3-fusepy), which has no types.

class FuseOSError(OSError):
    def __init__(self, errno: int) -> None: ...

class Operations:
    def __call__(self, op: str, *args: object) -> object: ...

class FUSE:
    def __init__(
        self,
        operations: Operations,
        mountpoint: str,
        raw_fi: bool = False,
        encoding: str = "utf-8",
        **kwargs: bool | int,
    ) -> None: ...

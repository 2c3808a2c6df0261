"""PySyncObj as the driver leaves it: the pinned source, and no pickle anywhere."""

import ast
import shutil
from pathlib import Path

import pysyncobj
import pysyncobj.journal
import pysyncobj.pickle
import pytest

from core.errors import FatalError
from raftstate.consensus.entries import MemberChange, decode_change
from raftstate.consensus.pysyncobj_driver import check_source, make_node

SOURCE = Path(pysyncobj.__file__).parent
EXECUTES = b"cos\nsystem\n(S'touch %s'\ntR."


def test_the_installed_version_is_the_pinned_one():
    check_source()


def test_one_changed_byte_is_refused(tmp_path):
    copy = tmp_path / "pysyncobj"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    check_source(copy)
    source = copy / "syncobj.py"
    source.write_text(source.read_text().replace("votesCount > (", "votesCount >= (", 1))
    with pytest.raises(FatalError, match="reinstall the product's virtual environment"):
        check_source(copy)


def test_the_distributions_version_is_refused():
    with pytest.raises(FatalError, match=r"found 0\.3\.11"):
        check_source(version="0.3.11")


def test_pysyncobjs_loads_executes_nothing(tmp_path):
    trap = tmp_path / "trap"
    for loads in (pysyncobj.pickle.loads, pysyncobj.journal.loads):
        loads(EXECUTES % str(trap).encode())
        assert not trap.exists()


def test_pysyncobjs_other_pickle_functions_refuse():
    for function in (
        pysyncobj.pickle.load,
        pysyncobj.pickle.dump,
        pysyncobj.journal.dumps,
    ):
        with pytest.raises(FatalError):
            function(b"")
    with pytest.raises(FatalError):
        pysyncobj.pickle.dumps({"any": "thing"})


def test_a_membership_change_is_the_one_thing_pysyncobj_may_write():
    content = pysyncobj.pickle.dumps(["add", "b", make_node("b", "10.0.0.2:7444")])
    assert decode_change(content) == MemberChange(True, "b", "10.0.0.2:7444")
    kind, host_id, node = pysyncobj.pickle.loads(content)
    assert (kind, host_id, node.address) == ("add", "b", "10.0.0.2:7444")


def test_every_use_of_pickle_in_pysyncobj_goes_through_the_replaced_functions():
    """Nothing binds a pickle function at import except the journal, whose bindings the driver replaces."""
    for path in SOURCE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and "pickle" in (node.module or ""):
                assert path.name == "journal.py"
                assert {alias.name for alias in node.names} == {"to_bytes", "loads", "dumps"}
            if isinstance(node, ast.Import) and any(a.name == "pickle" for a in node.names):
                assert path.name == "pickle.py"

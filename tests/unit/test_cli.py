"""The command as scripts and people meet it: exit codes, tokens, questions, progress, completion, start-up."""

import os
import pty
import select
import signal
import subprocess
import sys
from subprocess import PIPE

import pytest

from tests.golden.cli.cases import Terminal, kvorum
from tests.golden.cli.stub import Fault, StubAgent
from tests.golden.cli.world import small_cluster
from tests.tidy import ROOT
from tools.cli.completion import script
from tools.cli.main import run


@pytest.fixture
def world():
    return small_cluster()


@pytest.fixture
def agent(world):
    with StubAgent(world) as agent:
        yield agent


def test_exit_codes_are_0_done_1_refused_2_usage_3_unavailable(agent):
    assert kvorum("vm list", agent.address).code == 0
    assert kvorum("vm show nope", agent.address).code == 1
    assert kvorum("vm show", agent.address).code == 2
    assert kvorum("vm list", "unix:/nowhere/api.sock").code == 3


def test_an_agent_that_is_not_there_is_said_with_what_to_do():
    done = kvorum("status", "unix:/nowhere/api.sock")
    assert done.err == (
        "kvorum: no agent answers at /nowhere/api.sock: is it running? "
        "systemctl status kvorum-agent\n"
    )


def test_errors_are_one_line_whatever_the_agent_says(agent):
    agent.faults.append(Fault(409, "first\nsecond\x1b[2J"))
    done = kvorum("vm list", agent.address)
    assert done.err == "kvorum: first second [2J\n"


def test_lost_quorum_is_exit_code_3_of_status_and_is_shown(agent, world):
    world.status["quorum"] = False
    done = kvorum("status", agent.address)
    assert done.code == 3
    assert "LOST" in done.out


def test_status_of_a_host_without_a_cluster_says_how_to_begin(agent, world):
    world.state = "unconfigured"
    done = kvorum("status", agent.address)
    assert done.code == 0
    assert "kvorum init" in done.out


def test_a_host_that_its_cluster_removed_says_so_and_what_to_do(agent, world):
    world.state = "removed"
    done = kvorum("status", agent.address)
    assert done.code == 1
    assert "has removed this host (h1): 'kvorum leave --force'" in done.out
    done = kvorum("leave --force", agent.address, stdin="h2\n", terminal=True)
    assert (done.code, world.state) == (2, "removed")
    done = kvorum("leave --force", agent.address, stdin="h1\n", terminal=True)
    assert (done.code, world.state) == (0, "unconfigured")


def test_leaving_asks_a_person_first(agent, world):
    world.collections["vms"].clear()
    done = kvorum("leave", agent.address, stdin="n\n", terminal=True)
    assert (done.code, world.state) == (2, "member")
    done = kvorum("leave", agent.address, stdin="y\n", terminal=True)
    assert (done.code, world.state) == (0, "unconfigured")


def test_joining_says_what_the_cluster_survives_now(agent):
    for voters, wanted, survived, said in (
        (3, 3, 1, "3 vote, so that it survives the loss of any one"),
        (5, 5, 2, "5 vote, so that it survives the loss of 2"),
        (1, 3, 0, "1 of the 3 that shall vote do so already: kvorum members shows it"),
    ):
        joined = {"voters": voters, "voters_wanted": wanted, "losses_survived": survived}
        agent.world.joined = {"host_name": "h2", "cluster_name": "prod", "members": 3, **joined}
        assert said in kvorum("join kvj_1", agent.address).out


def test_a_failed_task_is_exit_code_1_with_its_error(agent, world):
    world.task_error = "no host has 2 GiB of memory left"
    done = kvorum("vm create web2 --image debian-12 --quiet", agent.address)
    assert (done.code, done.out) == (1, "")
    assert done.err == "kvorum: create web2: no host has 2 GiB of memory left\n"


def test_a_cancelled_task_is_exit_code_1(agent, world):
    world.collections["tasks"].append(
        {"id": "t9", "name": "t9", "workflow": "vm-create", "state": "cancelled"}
    )
    done = kvorum("task wait t9", agent.address)
    assert (done.code, done.err) == (1, "kvorum: vm-create: was cancelled\n")


def test_join_tokens_are_all_that_is_on_stdout(agent):
    done = kvorum("token create --count 3 --ttl 90s", agent.address, terminal=True)
    assert done.out == "kvj_1\nkvj_2\nkvj_3\n"
    assert "1m30s" in done.err
    assert agent.asked[0].json == {"count": 3, "ttl_s": 90}


def test_the_join_token_of_a_pipe_is_used(agent):
    done = kvorum("join --host-name h9", agent.address, stdin="  kvj_1\nrest\n")
    assert done.out.startswith("h9 is a member of prod")
    assert agent.asked[0].json["token"] == "kvj_1"


def test_init_and_join_are_refused_from_afar():
    for command in ("init", "join kvj_1"):
        done = kvorum(command, "h1", environ={"KVORUM_TOKEN": "kvt_x"})
        assert done.code == 2
        assert "acts on the host it runs on" in done.err


# -- access tokens


def test_a_remote_cluster_needs_a_token(tmp_path):
    done = kvorum("vm list", "h1", environ={"HOME": str(tmp_path)})
    assert done.code == 2
    assert "KVORUM_TOKEN" in done.err


def test_a_token_file_that_others_may_read_is_refused(tmp_path):
    file = tmp_path / ".config/kvorum/token"
    file.parent.mkdir(parents=True)
    file.write_text("kvt_x\n")
    file.chmod(0o644)
    done = kvorum("vm list", "h1", environ={"HOME": str(tmp_path)})
    assert (done.code, done.err) == (
        2,
        f"kvorum: {file} can be read by others: chmod 600 {file}\n",
    )


@pytest.mark.parametrize("token", ["kvj_1", "kvt_a b", "kvt_a\nX-Evil: 1", "x"])
def test_what_is_no_access_token_is_never_sent(token):
    done = kvorum("vm list", "h1", environ={"KVORUM_TOKEN": token})
    assert done.code == 2
    assert "holds no access token" in done.err
    assert token not in done.err


def test_a_token_file_of_ones_own_is_used(tmp_path):
    file = tmp_path / ".config/kvorum/token"
    file.parent.mkdir(parents=True)
    file.write_text("kvt_x\n")
    file.chmod(0o600)
    environ = {"HOME": str(tmp_path), "KVORUM_CA": str(tmp_path / "none.pem")}
    done = kvorum("vm list", "h1", environ=environ)
    assert done.code == 1
    assert "none.pem" in done.err


# -- questions


def test_on_a_terminal_deleting_shows_what_goes_with_it_and_asks(agent, world):
    done = kvorum("vm delete web1", agent.address, stdin="n\n", terminal=True)
    assert (done.code, done.out) == (2, "")
    assert "disk web1.0 (10 GiB) and all that is on it" in done.err
    assert "NIC web1.0 and its address 10.77.0.17" in done.err
    assert [vm["name"] for vm in world.collections["vms"]] == ["web1"]
    assert all(a.method == "GET" or a.query == (("dry_run", "1"),) for a in agent.asked)


def test_yes_deletes(agent, world):
    done = kvorum("vm delete web1", agent.address, stdin="y\n", terminal=True)
    assert (done.code, done.out) == (0, "web1: deleted\n")
    assert world.collections["vms"] == []


def test_with_yes_given_nothing_is_asked(agent):
    done = kvorum("vm delete web1 --yes", agent.address, terminal=True)
    assert done.code == 0
    assert "Go on?" not in done.err
    assert not [asked for asked in agent.asked if asked.query]


def test_a_script_is_not_asked_and_waits_for_nobody(agent, world):
    done = kvorum("vm delete web1", agent.address)
    assert (done.code, done.out) == (0, "web1: deleted\n")
    assert not [asked for asked in agent.asked if asked.query]


def test_what_stands_in_the_way_is_said_before_anything_is_asked(agent, world):
    done = kvorum("image delete debian-12", agent.address, stdin="y\n", terminal=True)
    assert (done.code, done.err) == (1, "kvorum: debian-12 is needed by web1.0\n")
    assert [image["name"] for image in world.collections["images"]] == ["debian-12"]


def test_a_long_list_of_what_a_deletion_touches_is_cut_short(agent, world):
    images = [{"kind": "image", "id": f"i{n}", "name": f"i{n}"} for n in range(30)]
    world.collections["hosts"][2]["detached"] = images
    done = kvorum("host remove h3", agent.address, stdin="n\n", terminal=True)
    assert "image i19 stays, without it\n  10 more\n" in done.err
    assert "i20" not in done.err


def test_what_has_no_preview_is_asked_for_without_one(agent):
    done = kvorum("access-token revoke ci", agent.address, stdin="y\n", terminal=True)
    assert (done.code, done.out) == (0, "ci: revoked\n")
    assert "This will revoke access token ci." in done.err
    assert not [asked for asked in agent.asked if asked.query]


def test_a_host_is_confirmed_off_by_typing_its_name(agent):
    done = kvorum("host confirm-off h3", agent.address, stdin="h2\n", terminal=True)
    assert done.code == 2
    assert "disks will be damaged" in " ".join(done.err.split())
    done = kvorum("host confirm-off h3-id", agent.address, stdin="h3\n", terminal=True)
    assert (done.code, done.out) == (0, "h3: taken as powered off\n")
    assert agent.asked[-1].json == {"confirm": "h3"}


# -- virtual machines


def test_a_vm_is_created_of_files_and_options(agent, tmp_path):
    (tmp_path / "id.pub").write_text("# mine\nssh-ed25519 AAAA me\n\nssh-rsa BBBB you\n")
    done = kvorum(
        "vm create db1 --image debian-12 --cpus 4 --memory 8GiB --disk-size 100GiB --no-ha --no-start"
        " --security-group a --security-group b --rule web --rule near --user-data - --no-wait"
        f" --ssh-key {tmp_path}/id.pub",
        agent.address,
        stdin="#cloud-config\n",
    )
    assert done.code == 0
    assert agent.asked[0].json == {
        "name": "db1",
        "image": "debian-12",
        "cpus": 4,
        "memory_mib": 8192,
        "disk_size_bytes": 100 << 30,
        "security_groups": ["a", "b"],
        "placement_rules": ["web", "near"],
        "ha": False,
        "ssh_keys": ["ssh-ed25519 AAAA me", "ssh-rsa BBBB you"],
        "user_data": "#cloud-config\n",
        "start": False,
        "description": "",
    }
    assert len(agent.asked) == 1


def test_a_private_key_is_never_sent(agent, tmp_path):
    key = tmp_path / "id"
    key.write_text("-----BEGIN OPENSSH " + "PRIVATE KEY-----\nx\n")
    done = kvorum(["vm", "create", "x", "--image", "i", "--ssh-key", str(key)], agent.address)
    assert done.code == 2
    assert f"give the public one, {key}.pub" in done.err
    assert not agent.asked


def test_what_is_no_public_key_is_refused(agent, tmp_path):
    for content in (b"", b"hello\n", b"\xff\xfe", b"ssh-rsa\n"):
        (tmp_path / "k").write_bytes(content)
        command = ["vm", "create", "x", "--image", "i", "--ssh-key", str(tmp_path / "k")]
        assert kvorum(command, agent.address).code == 2
    assert not agent.asked


# -- progress


def test_an_upload_shows_percent_lines_where_there_is_no_terminal(agent, tmp_path):
    file = tmp_path / "i.qcow2"
    file.write_bytes(bytes(4 << 20))
    done = kvorum(["image", "upload", "i", "--file", str(file)], agent.address)
    assert done.out == "i: uploaded; disks of it have at least 2 GiB\n"
    assert done.err.splitlines() == [f"uploading i: {percent}%" for percent in (20, 50, 70, 100)]


def test_on_a_terminal_progress_is_a_bar_that_goes_away(agent, tmp_path):
    file = tmp_path / "i.qcow2"
    file.write_bytes(bytes(2 << 20))
    done = kvorum(["image", "upload", "i", "--file", str(file)], agent.address, terminal=True)
    assert "uploading i [############------------]  50%" in done.err
    assert done.err.endswith("\r\x1b[K")


def test_quiet_shows_no_progress(agent):
    assert kvorum("--quiet vm create web2 --image i", agent.address).err == ""
    assert kvorum("vm create web3 --image i --quiet", agent.address).err == ""


def test_a_retry_is_told_once_on_a_terminal(agent):
    agent.faults.extend([Fault(503, "no quorum")] * 2)
    done = kvorum("vm list", agent.address, terminal=True)
    assert done.code == 0
    assert done.err == "kvorum: no quorum; trying again\n"


# -- interrupts


def start(command, address, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "tools.cli.main", *command.split()],
        cwd=ROOT,
        env={**os.environ, "KVORUM_ADDRESS": address},
        text=True,
        **options,
    )


def test_an_interrupted_wait_says_that_the_work_goes_on(agent, world):
    world.task_steps = tuple(f"step-{n}" for n in range(1000))
    process = start("vm migrate web1", agent.address, stdout=PIPE, stderr=PIPE)
    assert process.stderr.readline() == "migrate web1: 0% step-0\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out) == (130, "")
    task_id = world.collections["tasks"][-1]["id"]
    assert f"kvorum: the work goes on: kvorum task wait {task_id}\n" in err


def test_a_question_can_be_interrupted_at_once(agent, world):
    ours, theirs = pty.openpty()
    process = start("vm delete web1", agent.address, stdin=theirs, stdout=PIPE, stderr=PIPE)
    assert process.stderr.readline() == "This will delete VM web1 with:\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130
    assert [vm["name"] for vm in world.collections["vms"]] == ["web1"]
    os.close(ours)
    os.close(theirs)


def test_a_join_token_is_asked_for_without_echo(agent):
    ours, theirs = pty.openpty()
    process = start("join", agent.address, stdin=theirs, stdout=PIPE, stderr=PIPE)
    assert process.stderr.read(len("Join token: ")) == "Join token: "
    os.write(ours, b"kvj_1\n")
    out, _ = process.communicate(timeout=10)
    assert out.startswith("h2 is a member of prod")
    assert select.select([ours], [], [], 0)[0] == []
    os.close(ours)
    os.close(theirs)


# -- completion


def complete(line, address):
    """Return what bash offers after `line` when Tab is pressed."""
    words = line.split(" ")
    bash = (
        f'kvorum() {{ {sys.executable} -m tools.cli.main "$@"; }}\n{script("bash")}\n'
        f"COMP_WORDS=({' '.join(w or chr(39) * 2 for w in words)}); COMP_CWORD={len(words) - 1}\n"
        '_kvorum; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", bash],
        cwd=ROOT,
        env={**os.environ, "KVORUM_ADDRESS": address},
        capture_output=True,
        text=True,
        check=False,
        timeout=15,
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offers"),
    [
        ("kvorum sec", ["secrets", "security-group"]),
        ("kvorum vm st", ["start", "stop"]),
        ("kvorum security-group rule ", ["add", "remove", "enable", "disable"]),
        ("kvorum vm create x --im", ["--image"]),
        ("kvorum vm list -o ", ["table", "json", "yaml"]),
        ("kvorum vm show w", ["web1"]),
        ("kvorum vm migrate web1 --host ", ["h1", "h2", "h3"]),
        ("kvorum completion ", ["bash", "zsh"]),
    ],
)
def test_bash_completes(agent, line, offers):
    assert complete(line, agent.address) == offers


# -- the process


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from tools.cli.main import main; main(['--help']); "
        "print(sorted({'aiohttp', 'asyncio', 'msgspec', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=15,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_reader_that_has_enough_is_no_traceback(agent):
    done = subprocess.run(
        [
            "bash",
            "-c",
            f"{sys.executable} -m tools.cli.main api GET vms | true; echo ${{PIPESTATUS[0]}}",
        ],
        cwd=ROOT,
        env={**os.environ, "KVORUM_ADDRESS": agent.address},
        capture_output=True,
        text=True,
        check=True,
        timeout=15,
    )
    assert done.stderr == ""
    assert done.stdout.strip() in {"0", "141"}


def test_version_is_one_line():
    assert kvorum("--version").out.startswith("kvorum ")


def test_a_wrong_address_is_a_usage_error():
    out, err = Terminal(), Terminal()
    assert run(["vm", "list"], {"KVORUM_ADDRESS": "http://h1"}, Terminal(), out, err) == 2
    assert err.getvalue().startswith("kvorum: KVORUM_ADDRESS: ")

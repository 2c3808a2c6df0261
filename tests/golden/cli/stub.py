"""A stand-in for an agent: answers the HTTP API from tables, over a unix socket, in a thread of its own.

Tests of the command and of the client speak to it. It keeps what was asked, and can be told to fail.
"""

import asyncio
import hashlib
import json
import shutil
import tempfile
import threading
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

T0_MS = 1_795_449_600_000  # 2026-11-23 16:00:00 UTC


@dataclass(frozen=True)
class Asked:
    """One request as the stub saw it."""

    method: str
    path: str
    query: tuple
    key: str
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


@dataclass
class Fault:
    """What goes wrong with the next request: a status with a detail, or a connection that breaks."""

    status: int = 0
    detail: str = ""
    code: str = ""
    drop_after_bytes: int | None = None
    drop_answer: bool = False
    body: bytes | None = None
    retry_after: str = ""
    early: bool = False  # answer before the body is read


class Refused(Exception):
    def __init__(self, status, code, detail):
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail


@dataclass
class World:
    """What the cluster holds; shared by stubs that play its agents."""

    collections: dict = field(default_factory=dict)
    status: dict = field(default_factory=dict)
    health: dict = field(default_factory=dict)
    state: str = "member"
    task_error: str = ""
    task_steps: tuple = ("create-disk", "start")
    outcomes: dict = field(default_factory=dict)
    policy: dict = field(
        default_factory=lambda: {
            "voters_max": 5,
            "voter_replace_after_s": 600,
            "feature_level": 1,
            "voters": 3,
            "voters_wanted": 3,
            "losses_survived": 1,
        }
    )
    vip: str = ""
    arbitration: list = field(default_factory=list)
    secrets: dict = field(
        default_factory=lambda: {
            "key_id": "0123456789abcdef",
            "next_key_id": "fedcba9876543210",
            "former_key_id": "",
            "changing": True,
            "hosts_without_key": ["h3"],
            "secrets_by_key": {"0123456789abcdef": 2},
            "hosts": [
                {
                    "name": "h1",
                    "state": "ok",
                    "place": "hsm",
                    "key_id": "0123456789abcdef",
                    "hsm": "key kvorum-1 in token kvorum",
                    "fault": "",
                },
                {
                    "name": "h2",
                    "state": "fault",
                    "place": "file",
                    "key_id": "0123456789abcdef",
                    "hsm": "",
                    "fault": "the HSM can't be used for key kvorum-1 in token kvorum: "
                    "it did not answer within 20 s",
                },
                {
                    "name": "h3",
                    "state": "no answer",
                    "place": "",
                    "key_id": "",
                    "hsm": "",
                    "fault": "",
                },
            ],
        }
    )
    joined: dict = field(default_factory=dict)
    made: int = 0
    page_size: int = 1000

    def new_id(self):
        self.made += 1
        return f"00000000-0000-4000-8000-{self.made:012d}"


class StubAgent:
    """Use as a context manager; `address` is for KVORUM_ADDRESS. `tls` makes it speak HTTPS on 127.0.0.1."""

    def __init__(self, world=None, tls=None):
        self.world = world or World()
        self._tls = tls
        self.asked: list[Asked] = []
        self.faults: deque[Fault] = deque()
        self.streams: deque = deque()
        self.silent_streams = False  # whether a stream stays open when all is sent
        self._dir = Path(tempfile.mkdtemp(prefix="kvt-cli-"))
        self.socket = self._dir / "api.sock"
        self.address = f"unix:{self.socket}"
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        shutil.rmtree(self._dir)

    def _serve(self):
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._main())

    async def _main(self):
        self._stop = asyncio.Event()
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        if self._tls is None:
            await web.UnixSite(runner, str(self.socket)).start()
        else:
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._tls).start()
            self.address = f"127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        await self._stop.wait()
        for one in runner.server.connections:  # it dies: no farewells, which TLS would wait for
            if one.transport is not None:
                one.transport.abort()
        await runner.cleanup()

    async def _handle(self, request):
        fault = self.faults.popleft() if self.faults else Fault()
        if fault.drop_after_bytes is not None:
            await request.content.readexactly(fault.drop_after_bytes)
            self._remember(request, b"")
            request.transport.abort()
            return web.Response()
        body = b"" if fault.early else await request.read()
        asked = self._remember(request, body)
        if fault.status:
            refused = self._problem(Refused(fault.status, fault.code or "fault", fault.detail))
            if fault.retry_after:
                refused.headers["Retry-After"] = fault.retry_after
            return refused
        if fault.body is not None:
            return web.Response(body=fault.body)
        if request.path == "/v1/events" and "event-stream" in request.headers["Accept"]:
            return await self._stream(request)
        try:
            status, value, headers = self._answer_once(asked)
        except Refused as refused:
            return self._problem(refused)
        if fault.drop_answer:
            request.transport.abort()
            return web.Response()
        if status == 204:
            return web.Response(status=204)
        return web.json_response(value, status=status, headers=headers)

    def _remember(self, request, body):
        query = tuple(request.query.items())
        asked = Asked(
            request.method,
            request.path,
            query,
            request.headers.get("Idempotency-Key", ""),
            dict(request.headers),
            body,
        )
        self.asked.append(asked)
        return asked

    def _problem(self, refused):
        body = {
            "type": "about:blank",
            "title": refused.code,
            "status": refused.status,
            "code": refused.code,
            "detail": refused.detail,
        }
        return web.json_response(
            body, status=refused.status, content_type="application/problem+json"
        )

    async def _stream(self, request):
        """Send the next planned pieces, then break off; when nothing is planned, stay silent."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if not self.streams:
            await self._stop.wait()
            return response
        for piece in self.streams.popleft():
            await response.write(piece)
        if self.silent_streams:
            await self._stop.wait()
        return response

    def _page(self, items, query):
        """A cursor is where to go on; fields are taken as they are."""
        if "count" in query:
            return {"items": [], "count": len(items), "index": 42}
        if "explain" in query:
            steps = [
                {"step": "SCAN t", "reads_rows": len(items)},
                {"step": "SCAN p", "reads_rows": 0},
            ]
            return {"items": [], "plan": steps, "reads_rows": len(items), "index": 42}
        if sort := query.get("sort"):
            items = sorted(items, key=lambda item: item[sort.lstrip("-")], reverse=sort[0] == "-")
        first = int(query.get("cursor", 0))
        end = first + min(int(query.get("limit", self.world.page_size)), self.world.page_size)
        page = items[first:end]
        if "fields" in query:
            page = [
                {field: item.get(field) for field in query["fields"].split(",")} for item in page
            ]
        return {"items": page, "index": 42} | ({"next": str(end)} if end < len(items) else {})

    def _answer_once(self, asked):
        """A repeated change gets its first outcome."""
        if asked.method == "GET":
            return self._answer(asked)
        assert asked.key, "every change carries an Idempotency-Key"
        place = (asked.path, asked.key)
        if place not in self.world.outcomes:
            self.world.outcomes[place] = self._answer(asked)
        return self.world.outcomes[place]

    def _answer(self, asked):
        match asked.method, asked.path.removeprefix("/v1/").split("/"):
            case "GET", ["status"]:
                return 200, self.world.status, {}
            case "GET", ["health"]:
                return 200, self.world.health, {}
            case _, ["local", what]:
                return self._local(what, asked)
            case _, ["secrets", *_]:
                return 200, self.world.secrets, {}
            case _, ["callback-key", *_]:
                return 200, {"public_key": "whpk_AAAA"}, {}
            case "GET", [plural]:
                items = self._all(plural)
                for condition in (value for name, value in asked.query if name == "q"):
                    attribute, _, value = condition.partition("=")
                    items = [item for item in items if str(item.get(attribute)) == value]
                return 200, self._page(items, dict(asked.query)), {}
            case (("GET" | "PATCH"), ["members", "policy"]):
                self.world.policy.update(asked.json if asked.body else {})
                return 200, self.world.policy, {}
            case (("GET" | "PATCH"), ["members", "vip"]):
                if asked.body:
                    self.world.vip = str(asked.json["address"])
                holder = "h1" if self.world.vip and not asked.body else ""
                return 200, {"address": self.world.vip, "holder_name": holder, "problems": []}, {}
            case (("GET" | "PATCH"), ["members", "arbitration"]):
                if asked.body:
                    self.world.arbitration = list(asked.json["addresses"])
                hosts = [
                    {"host_name": "h1", "state": "reached", "answering": ["10.0.0.1"]},
                    {"host_name": "h2", "state": "lost", "answering": []},
                    {"host_name": "h3", "state": None, "answering": []},
                ]
                shown = {
                    "addresses": self.world.arbitration,
                    "hosts": hosts if self.world.arbitration and not asked.body else [],
                    "problems": [],
                }
                return 200, shown, {}
            case "POST", ["members", name, "actions", verb]:
                vote = {"promote": "always", "demote": "never", "auto": "auto"}[verb]
                self._one("members", name)["vote"] = vote
                return 200, {"name": name, "vote": vote, "role": "voter"}, {}
            case "GET", ["bmcs", name, "power"]:
                return 200, {"host": self._one("hosts", name)["name"], "on": name != "h3"}, {}
            case "POST", ["bmcs", name, "actions", _]:
                self._one("hosts", name)
                return 204, None, {}
            case "POST", ["bmcs"]:
                usual = {"port": 623, "cipher_suite": 17, "protocol": "ipmi"}
                if asked.json.get("protocol") == "redfish":
                    usual |= {"port": 443, "fingerprint": "5f" * 32, "system": "1"}
                board = {**usual, **asked.json, "name": asked.json["host"], "state": "ok"}
                board["password"] = "***"
                return 201, self._made("bmcs", board), {}
            case "POST", ["drills", "actions", "check"]:
                return 200, self._drill_plan(asked.json), {}
            case "POST", ["drills"]:
                return 201, self._drill(asked.json), {}
            case "POST", ["drills", name, "actions", "abort"]:
                return 202, self._one("drills", name), {}
            case "GET", ["drills", name, "report"]:
                return 200, self._drill_report(self._one("drills", name)), {}
            case "GET", ["tasks", name]:
                return 200, self._worked_on(self._one("tasks", name)), {}
            case "GET", ["placement-rules", name, "check"]:
                return 200, self._rule_check(self._one("placement-rules", name)), {}
            case "GET", [plural, name]:
                return 200, self._one(plural, name), {}
            case (("GET" | "PATCH"), [plural, name, "tags"]):
                one = self._one(plural, name)
                if asked.body:
                    tags = {*one.get("tags", ()), *asked.json["add"]} - {*asked.json["remove"]}
                    one["tags"] = sorted(tags)
                return 200, {"tags": one.get("tags", [])}, {}
            case "DELETE", [plural, name] if ("dry_run", "1") in asked.query:
                return 200, self._plan(plural, self._one(plural, name)), {}
            case "POST", ["tasks", name, "actions", "retry"]:
                return 202, self._one("tasks", name), {}
            case "DELETE", ["tasks", name]:
                self._one("tasks", name)["cancel_requested"] = True
                return 202, self._one("tasks", name), {}
            case "DELETE", ["vms", name]:
                return self._accepted(self._one("vms", name), "vm-delete")
            case "DELETE", [plural, name]:
                self._all(plural).remove(self._one(plural, name))
                return 204, None, {}
            case "POST", ["vms", "actions", verb]:
                items = [self._one_of_many(name, verb, asked) for name in asked.json["vms"]]
                return 200, {"items": items}, {}
            case "POST", [plural, "actions", verb]:
                names = asked.json[plural.replace("-", "_")]
                return 200, {"items": [self._one_of_any(plural, n, verb) for n in names]}, {}
            case "POST", ["tasks", name, "actions", "give-up"]:
                task = self._one("tasks", name)
                left = {"step": "delete-disks", "resource": "disk/d1", "what": "the disk's file"}
                task.update(state="failed", error=asked.json["reason"], left_behind=[left])
                return 202, task, {}
            case "POST", ["workflows", name, "actions", "run"]:
                if not asked.json["arguments"].get("note"):
                    raise Refused(400, "invalid", f"workflow {name!r} needs the argument 'note'")
                return self._accepted(self._one("vms", asked.json["vm"]), name)
            case "POST", [("vms" | "hosts") as plural, name, "actions", verb]:
                return self._act(plural, name, verb, asked)
            case "POST", ["vms"]:
                vm = self._made("vms", {"phase": "creating", "ips": ["10.77.0.20"], **asked.json})
                vm["host_name"] = asked.json.get("host") or "h2"
                return self._accepted(vm, "vm-create")
            case "POST", ["certificates"]:
                return 201, {"names": ["h1.example.org"], "warnings": ["it is not for h2"]}, {}
            case "POST", ["images"]:
                return self._uploaded(asked)
            case "POST", ["join-tokens"]:
                count = asked.json["count"]
                tokens = [f"kvj_{n}" for n in range(1, count + 1)]
                return 201, {"tokens": tokens, "expires_ms": T0_MS}, {}
            case "POST", ["access-tokens"]:
                return 201, {"token": "kvt_secret", "id": self.world.new_id()}, {}
            case "POST", ["security-groups", name, "rules"]:
                rule = {"id": self.world.new_id(), "enabled": True, **asked.json}
                self._one("security-groups", name)["rules"].append(rule)
                return 201, rule, {}
            case (("PATCH" | "DELETE"), ["security-groups", name, "rules", rule_id]):
                return self._change_rule(name, rule_id, asked)
            case "PATCH", [plural, name]:
                self._one(plural, name).update(self._named(plural, asked.json))
                return 200, self._one(plural, name), {}
            case "POST", [plural]:
                return 201, self._made(plural, self._named(plural, asked.json)), {}
        raise Refused(404, "not-found", f"there is no {asked.path}")

    def _rule_check(self, rule):
        broken = ["web1 and web2 are together on h1"] if len(rule["vm_names"]) > 1 else []
        return {
            "name": rule["name"],
            "holds": not broken,
            "broken": broken,
            "warnings": [],
            "index": 1,
        }

    def _one_of_many(self, name, verb, asked):
        about = {"ref": name, "id": "", "task": None, "problem": None}
        try:
            if verb == "delete":
                status, said, _ = self._accepted(self._one("vms", name), "vm-delete")
            else:
                status, said, _ = self._act("vms", name, verb, asked)
        except Refused as refused:
            problem = {"code": refused.code, "detail": refused.detail}
            return {**about, "status": refused.status, "problem": problem}
        return {**about, "id": said["vm"]["id"], "status": status, "task": said["task"]}

    def _one_of_any(self, plural, name, verb):
        """Do a verb that starts no task to one of many; deleting and asking is all that stories tell of."""
        about = {"ref": name, "id": "", "name": "", "task": None, "problem": None}
        try:
            found = self._one(plural, name)
        except Refused as refused:
            problem = {"code": refused.code, "detail": refused.detail}
            return {**about, "status": refused.status, "problem": problem}
        if verb == "delete":
            self._all(plural).remove(found)
        known = {"id": found["id"], "name": found.get("name", name)}
        return {**about, **known, "status": 204 if verb == "delete" else 202}

    def _local(self, what, asked):
        if what == "status":
            said = {"state": self.world.state, "version": "0.1.0", "host_name": "h1"}
            if self.world.state == "removed":
                said["detail"] = (
                    "the cluster prod has removed this host (h1): 'kvorum leave --force'"
                )
            return 200, said, {}
        if what == "init":
            name = asked.json["host_name"] or "h1"
            return (
                201,
                {
                    "host_id": self.world.new_id(),
                    "host_name": name,
                    "address": asked.json["address"] or "10.0.0.1",
                    "api": "https://10.0.0.1:7443",
                    "admin_token_file": "/etc/kvorum/admin.token",
                },
                {},
            )
        if what == "leave":
            if asked.json.get("force") and self.world.state == "member":
                raise Refused(409, "conflict", "the cluster counts this host as a member")
            if self._all("vms") and self.world.state == "member":
                raise Refused(409, "conflict", "VM 'web1' is on host h1: move or delete it first")
            self.world.state = "unconfigured"
            return 200, {"host_name": "h1", "cluster_name": "prod"}, {}
        if asked.json["token"] != "kvj_1":
            raise Refused(
                401, "unauthenticated", "this join token was used by host h2: make another one"
            )
        return (
            200,
            {
                "host_id": self.world.new_id(),
                "host_name": asked.json["host_name"] or "h2",
                "cluster_name": "prod",
                "members": 2,
                "voters": 1,
                "voters_wanted": 1,
                "losses_survived": 0,
                **self.world.joined,
            },
            {},
        )

    def _act(self, plural, name, verb, asked):
        item = self._one(plural, name)
        if plural == "hosts":
            return 200, {"host": item["name"], "vms_released": 1}, {}
        wanted = {"start": "running", "stop": "stopped"}.get(verb, "running")
        if verb in {"start", "stop"} and item["phase"] == wanted:
            return 200, {"vm": item, "task": None}, {}
        if verb == "migrate":
            item["host_name"] = asked.json.get("host") or "h3"
        item["phase"] = wanted
        return self._accepted(item, f"vm-{verb}")

    def _uploaded(self, asked):
        query = dict(asked.query)
        found = hashlib.sha256(asked.body).hexdigest()
        if query["sha256"] != found:
            raise Refused(400, "invalid", "the upload does not have the SHA-256 it should have")
        return (
            201,
            self._made(
                "images",
                {
                    "name": query["name"],
                    "state": "ready",
                    "sha256": found,
                    "size_bytes": len(asked.body),
                    "virtual_size_bytes": 2 << 30,
                    "source_format": query.get("format", "qcow2"),
                    "host_names": ["h1"],
                },
            ),
            {},
        )

    def _plan(self, plural, item):
        """What goes along with a VM, and what else a disk or a VM would miss."""
        kinds = {"disks": "disk", "nics": "nic", "vms": "vm"}

        def those(of, attribute):
            return [
                {"kind": kinds[of], "id": one["id"], "name": one["name"], "to": item["name"]}
                for one in self._all(of)
                if one.get(attribute) == item["id"]
            ]

        along = those("disks", "vm_id") + those("nics", "vm_id") if plural == "vms" else []
        needed = {"images": ("disks", "image_id"), "hosts": ("vms", "host_id")}
        refused = those(*needed[plural]) if plural in needed else []
        why = f"{item['name']} is needed by {refused[0]['name']}" if refused else ""
        plan = {"deleted": along, "detached": item.get("detached", []), "refused": refused}
        return plan | {"allowed": not refused, "why_not": why}

    def _change_rule(self, name, rule_id, asked):
        rules = self._one("security-groups", name)["rules"]
        for rule in rules:
            if rule["id"] == rule_id:
                if asked.method == "PATCH":
                    rule.update(asked.json)
                    return 200, rule, {}
                rules.remove(rule)
                return 204, None, {}
        raise Refused(404, "not-found", f"security group {name!r} has no rule {rule_id!r}")

    def _accepted(self, vm, workflow):
        task = self._made(
            "tasks",
            {
                "name": "",
                "workflow": workflow,
                "subject": f"vm/{vm['id']}",
                "subject_name": vm["name"],
                "state": "pending",
                "progress": 0,
                "step": "",
            },
        )
        # A copy: the answer must not change when the task does.
        return 202, {"vm": dict(vm), "task": dict(task)}, {"Location": f"/v1/tasks/{task['id']}"}

    def _worked_on(self, task):
        """Every look at a task moves it a step further."""
        if task["state"] in {"succeeded", "failed", "cancelled"}:
            return task
        steps = self.world.task_steps
        done = steps.index(task["step"]) + 1 if task["step"] in steps else 0
        task["revision"] = task.get("revision", 0) + 1
        if task.get("cancel_requested"):
            task.update(state="cancelled")
        elif done == len(steps):
            self._end(task)
        else:
            task.update(state="running", step=steps[done], progress=100 * done // len(steps))
        return task

    def _end(self, task):
        if self.world.task_error:
            task.update(state="failed", error=self.world.task_error, error_code="conflict")
            return
        task.update(state="succeeded", progress=100)
        vm = self._one("vms", task["subject"].removeprefix("vm/"))
        if task["workflow"] == "vm-delete":
            self._all("vms").remove(vm)
        elif task["workflow"] == "vm-create":
            vm["phase"] = "running" if vm.get("start", True) else "stopped"

    def _drill_plan(self, asked):
        vms = [{"name": "web1", "was_on": asked["host"], "promise": "moves", "bound_ms": 21000}]
        obstacle = {
            "code": "watchdog-not-armed",
            "what": "the watchdog of h3 is not armed: nothing would prove that it is silent",
            "advice": "load a watchdog driver (softdog will do) and restart the host: docs/ha.md",
        }
        return {
            "kind": asked["kind"],
            "host_name": asked["host"],
            "observer_name": "h1",
            "possible": asked["host"] != "h3",
            "duration_s": asked["duration_s"],
            "obstacles": [obstacle] if asked["host"] == "h3" else [],
            "warnings": [],
            "vms": vms,
        }

    def _drill(self, asked):
        events = [
            {
                "after_ms": 0,
                "code": "fault",
                "text": "the BMC of h2 is told to take its power away",
            },
            {"after_ms": 9800, "code": "running/1", "text": "VM web1 runs on h1"},
        ]
        return self._made(
            "drills",
            {
                "name": f"{asked['kind']}-{asked['host']}-1",
                "kind": asked["kind"],
                "host_label": asked["host"],
                "state": "ended",
                "verdict": "passed",
                "why": "1 VM ran again after 9.8 s at most; 21.0 s is promised",
                "events": events,
                "vms": [],
                "ended_ms": T0_MS,
            },
        )

    def _drill_report(self, drill):
        line = f"PASSED: {drill['kind']} {drill['host_label']}: {drill['why']}"
        return {
            "drill": drill["name"],
            "kind": drill["kind"],
            "verdict": drill["verdict"],
            "line": line,
            "meaning": "The cluster kept its promise.",
            "to_do": "Nothing.",
            "text": f"{line}\n\nWhat it means\n  The cluster kept its promise.\n",
            "markdown": f"# Drill {drill['name']}\n\n**{line}**\n",
        }

    def _named(self, plural, fields):
        """Return what was given as it is shown: relations of rules by their names."""
        if plural != "placement-rules":
            return fields
        shown = {"cluster": "cluster_name", "vms": "vm_names", "hosts": "host_names"}
        return {shown.get(name, name): value for name, value in fields.items()}

    def _made(self, plural, fields):
        word = plural.removesuffix("s").replace("-", " ")
        if fields["name"] and any(item["name"] == fields["name"] for item in self._all(plural)):
            raise Refused(409, "conflict", f"{word} name {fields['name']!r} is already taken")
        item = {"id": self.world.new_id(), "revision": 7, "created_ms": T0_MS, **fields}
        if plural == "port-groups":
            item.setdefault("vni", 101)
        if plural == "security-groups":
            item["rules"] = []
        self._all(plural).append(item)
        return item

    def _all(self, plural):
        return self.world.collections.setdefault(plural, [])

    def _one(self, plural, name):
        for item in self._all(plural):
            if name in (item["id"], item.get("name")):
                return item
        raise Refused(404, "not-found", f"there is no {plural.removesuffix('s')} {name!r}")

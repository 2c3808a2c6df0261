"""What the client sends is what the agent's API decodes: both sides' structs, held against each other."""

import msgspec
import pytest

from core.model import Cluster, DataCenter, Permission
from nodeagent.api import (
    access_keys,
    accounts,
    certificates,
    hosts,
    joining,
    members,
    networks,
    roles,
    storages,
    two_factor,
)
from nodeagent.api.bodies import change_body, create_body
from nodeagent.services import vm_requests
from storage.image_check import ImageFormat
from tools.cli.image import FORMATS
from tools.sdk import bodies

PAIRS = [
    (bodies.InitBody(), joining.InitCluster),
    (bodies.JoinBody(token="kvj_1", witness=True), joining.JoinCluster),
    (bodies.JoinTokenBody(), joining.MakeJoinTokens),
    (bodies.AccessTokenBody(name="ci"), joining.MakeAccessToken),
    (bodies.CertificateBody(content=b"x"), certificates.ImportCertificate),
    (
        bodies.CertificateBody(content=b"x", passphrase="p", host="h1"),
        certificates.ImportCertificate,
    ),
    (bodies.AccessTokenBody(name="ci", roles=("viewer",)), joining.MakeAccessToken),
    (bodies.AccessKeyBody(name="ci", account="a"), access_keys.MakeAccessKey),
    (bodies.AccessKeyBody(name="ci", roles=("viewer",), ttl_s=9), access_keys.MakeAccessKey),
    (bodies.AccessKeyPatch(disabled=True, description="x"), access_keys.ChangeAccessKey),
    (bodies.LoginBody(name="a", password="b", code="1"), accounts.LogIn),
    (bodies.AccountBody(name="a", roles=("viewer",)), accounts.CreateAccount),
    (bodies.AccountPatch(disabled=True, roles=(), description="x"), accounts.ChangeAccount),
    (bodies.PasswordBody(password="a", old_password="b"), accounts.SetPassword),
    (bodies.CodeBody(code="1"), two_factor.TotpCode),
    (bodies.PermissionBody(kinds=("vm",), actions=("read",)), Permission),
    (bodies.RoleBody(name="a", permissions=(), description="x"), roles.WriteRole),
    (bodies.DataStorageBody(name="s", kind="shared", path="/srv"), storages.CreateDataStorage),
    (bodies.PortGroupBody(name="pg", cidr="10.0.0.0/24"), networks.CreatePortGroup),
    (
        bodies.PortGroupBody(
            name="pg",
            cidr="10.0.0.0/24",
            vni=7,
            gateway="10.0.0.1",
            dns=("9.9.9.9",),
            mtu=1400,
            switch="s",
        ),
        networks.CreatePortGroup,
    ),
    (bodies.SecurityGroupBody(name="web", data_center="d"), networks.CreateSecurityGroup),
    (bodies.DataCenterBody(name="d", description="x"), create_body(DataCenter)),
    (bodies.ClusterBody(name="c", data_center="d", description="x"), create_body(Cluster)),
    (bodies.PlacePatch(name="c", description="x"), change_body(Cluster)),
    (bodies.PlacePatch(name="d"), change_body(DataCenter)),
    (bodies.JoinTokenBody(cluster="c"), joining.MakeJoinTokens),
    (bodies.HostPatch(cluster="c"), hosts.ChangeHost),
    (bodies.RuleBody(direction="ingress", protocol="tcp"), networks.CreateRule),
    (bodies.RulePatch(enabled=False), networks.ChangeRule),
    (bodies.VMBody(name="web1", image="i"), vm_requests.CreateVM),
    (
        bodies.VMBody(
            name="web1",
            image="i",
            disk_size_bytes=1,
            data_storage="s",
            port_group="pg",
            security_groups=("a",),
            cluster="c",
            host="h1",
            hostname="web1",
        ),
        vm_requests.CreateVM,
    ),
    (bodies.VMPatch(ha=False, description="x"), vm_requests.ChangeVM),
    (bodies.StopBody(force=True, timeout_s=5), vm_requests.StopVM),
    (bodies.MigrateBody(host="h2"), vm_requests.MigrateVM),
    (bodies.MigrateBody(), vm_requests.MigrateVM),
    (bodies.ConfirmOffBody(confirm="h3"), hosts.ConfirmOff),
    (bodies.HostPatch(failure_domain="rack1"), hosts.ChangeHost),
    (bodies.LeaveBody(force=True, confirm="h3"), joining.LeaveCluster),
    (bodies.VoterPolicyBody(voters_max=7), members.ChangePolicy),
    (bodies.VoterPolicyBody(voter_replace_after_s=60), members.ChangePolicy),
]


@pytest.mark.parametrize(("sent", "expected"), PAIRS, ids=lambda x: type(x).__name__)
def test_the_agent_understands_what_the_client_sends(sent, expected):
    decoded = msgspec.json.decode(msgspec.json.encode(sent), type=expected)
    for field in sent.__struct_fields__:
        value = getattr(sent, field)
        assert value is msgspec.UNSET or getattr(decoded, field) == value


def test_the_command_offers_the_formats_that_the_agent_takes():
    assert set(FORMATS) == {str(format_) for format_ in ImageFormat}

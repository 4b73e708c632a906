"""Objects as YAML: what is left out, that everything else comes back as it was, and that damage is seen."""

import copy
import io
import tracemalloc
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgedr import kubernetes_yaml
from edgedr.kubernetes_yaml import ACCOUNT_KINDS, ObjectCounter, cleaned, is_account_kind, named, remarks, written
from edgedr.node.kube import Kind
from tests.lab.apiserver import recording

ODD = [
    "on", "y", "N", "~", "null", "", "=", "<<", "0777", "0o17", "0x1F", "1e3", "1E3", "1_000", "1:30", "190:20:30",
    ".5", "5E", ".inf", "-.INF", ".nan", "2026-11-22", "2026-11-22T22:36:01Z", "1.2.3", "10.0.0.1", "+12", "-0",
    "- a", "? b", ": c", "a: b", "a #b", "#x", "&a", "*b", "!t", "%d", "@x", "`y", "'q'", '"d"', "{a}", "[b]", "a ",
    "\n", "\n\n", " \n", "a\n", "a\n\n", "  lead\nx\n", "\nlead\n", "tab\there\n", "\ta\nb", "a \nb", "a\r\nb",
    "\x85", "a\x85b\nc", "a\u2028b\nc", "a\u2029\n", "é\nü\n", "\U0001f600\nb", "\ufeffx", "\x07", "\x7f", "\x9f",
    "x" * 3000, "word " * 400, "---\n", "...\n", "a\n---\nb\n", "a\n# end\n", "a\n \n b\n",
]  # fmt: skip

TEXT = st.text(
    st.characters(min_codepoint=1, exclude_categories=["Cs"]) | st.sampled_from("\n\n \t:#-'\"0e1\r\x85\u2028"),
    max_size=60,
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
    | st.sampled_from(ODD),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT | st.sampled_from(ODD), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def an_object(**more: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "n"}, **more}


def document(*objects: dict[str, Any]) -> bytes:
    return ("# head\n" + "".join(f"---\n{written(each)}" for each in objects) + "# end\n").encode()


def counted(data: bytes, piece: int = 1 << 20) -> ObjectCounter:
    counter = ObjectCounter()
    pieces = io.BytesIO(data)
    while chunk := pieces.read(piece):
        counter.write(chunk)
    counter.end()
    return counter


@pytest.fixture(params=["CSafeDumper", "SafeDumper"])
def dumper(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write with libyaml, and as where it is not there."""
    made = kubernetes_yaml._dumper_on(getattr(yaml, request.param))
    monkeypatch.setattr(kubernetes_yaml, "_dumper", lambda: made)


@pytest.mark.usefixtures("dumper")
@pytest.mark.parametrize("text", ODD)
def test_an_odd_text_comes_back_as_it_was(text: str) -> None:
    """A text is a text again, as a value, as a key, and in a list, whatever it looks like."""
    item = an_object(data={"key": text, f"{text}|": "x", "list": [text, text]}, **({text: 1} if text else {}))
    assert yaml.safe_load(written(item)) == item


@given(JSON, TEXT)
def test_any_object_comes_back_as_it_was(value: Any, key: str) -> None:
    """What is read from the YAML equals the object, whatever JSON can hold."""
    item = an_object(data={key: value})
    text = written(item)
    assert yaml.safe_load(text) == item
    assert list(yaml.safe_load_all(document(item, item))) == [item, item]
    assert (counted(document(item, item)).objects, counted(document(item)).problem) == (2, None)


@pytest.mark.parametrize("text", ["1e3", "0o17", "y", "No", "1_0", "2026-1-2", "5E", "0x1p-2", "12e03", "1:30"])
def test_what_another_reader_takes_for_a_number_is_quoted(text: str) -> None:
    """The reader in kubectl knows more numbers and truth values than the one that we test with."""
    assert written({"a": text}) == f'a: "{text}"\n'


@pytest.mark.parametrize("text", ["10.96.0.1", "1.36.2", "64Mi", "100m", "8e9e-web", "10.0.0.0/8", "a-1", "always"])
def test_what_nobody_mistakes_is_plain(text: str) -> None:
    """Quotes only where they are needed: a person reads this."""
    assert written({"a": text}) == f"a: {text}\n"


def test_a_text_of_several_lines_stays_one() -> None:
    """A Corefile in a ConfigMap reads as a Corefile; long lines are not folded."""
    corefile = ".:53 {\n    errors\n    forward . /etc/resolv.conf {\n    }\n}\n"
    assert written(an_object(data={"Corefile": corefile})).endswith(
        "data:\n  Corefile: |\n" + "".join(f"    {line}\n" for line in corefile.splitlines())
    )
    assert len(written({"a": "word " * 400 + "end"}).splitlines()) == 1


def test_the_same_value_twice_is_written_twice() -> None:
    """No aliases: each object can be taken out of the document as it stands."""
    shared = {"a": [1, 2]}
    assert written({"x": shared, "z": shared}) == "x:\n  a:\n  - 1\n  - 2\nz:\n  a:\n  - 1\n  - 2\n"


@pytest.mark.usefixtures("dumper")
def test_the_order_of_keys_is_ours() -> None:
    """However a server orders its keys, the document is the same, and begins with what one looks for."""
    container = {"ports": [{"protocol": "TCP", "containerPort": 80}], "image": "nginx", "name": "web"}
    spec = {
        "template": {"spec": {"containers": [container]}, "metadata": {"labels": {"b": "2", "a": "1"}}},
        "replicas": 1,
    }
    metadata = {"labels": {"z": "1", "app": "web"}, "annotations": {"note": "x"}, "namespace": "team", "name": "web"}
    item = {"spec": spec, "metadata": metadata, "immutable": True, "kind": "Deployment", "apiVersion": "apps/v1"}

    def turned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: turned(value[key]) for key in reversed(value)}
        return [turned(each) for each in value] if isinstance(value, list) else value

    assert written(cleaned(item)) == written(cleaned(turned(item)))
    assert written(cleaned(item)) == (
        "apiVersion: apps/v1\nkind: Deployment\n"
        'metadata:\n  name: web\n  namespace: team\n  annotations:\n    note: x\n  labels:\n    app: web\n    z: "1"\n'
        'spec:\n  replicas: 1\n  template:\n    metadata:\n      labels:\n        a: "1"\n        b: "2"\n    spec:\n'
        "      containers:\n      - name: web\n        image: nginx\n        ports:\n"
        "        - containerPort: 80\n          protocol: TCP\n"
        "immutable: true\n"
    )
    many = {"b": [0] * 200_000, "a": 1}
    assert written({**item, "data": many}) == written({"data": turned(many), **turned(item)})


def test_the_order_of_keys_may_be_kept() -> None:
    """What was put into an order by us stays in it."""
    assert written({"b": {"d": 1, "c": 2}, "a": 3}, as_given=True) == "b:\n  d: 1\n  c: 2\na: 3\n"


@pytest.mark.parametrize(
    "many",
    [
        [1] * 150_000,
        [[]] * 110_000,
        dict.fromkeys(map(str, range(110_000)), None),
        ['a\x7f\x80\x85\x9f\xa0\u2028\u2029\ufeff\ufffd\ufffe\uffff\U0001f600\n\x00\\/"'] * 110_000,
        {"k" * 1000: [1.5, -1, True, None, "---"] * 21_000},
    ],
    ids=["integers", "empty", "keys", "signs", "mixed"],
)
def test_many_values_are_few_lines(many: Any) -> None:
    """An object of hundreds of thousands of values is written in one line, is read as it was, and counted."""
    item = an_object(spec=many)
    text = written(item)
    assert text.count("\n") == 1
    assert yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) == item
    counter = counted(document(item, an_object(), item))
    assert (counter.objects, counter.problem) == (3, None)


def test_many_values_take_little_memory() -> None:
    """A megabyte of integers is no half a gigabyte of nodes."""
    item = an_object(spec=[1] * 500_000)
    tracemalloc.start()
    try:
        written(item)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24 << 20


@pytest.mark.parametrize(
    "item",
    [
        {"spec": {"k" * 2000: [1] * 200_000}},
        {"spec": "\x07" * (20 << 20)},
        {"spec": ["\x7f" * 60] * 110_000},
    ],
    ids=["key", "escapes", "more-escapes"],
)
def test_what_could_not_be_counted_is_not_written(item: dict[str, Any]) -> None:
    """What no reader takes back, or only with too much memory, is refused before it is written."""
    with pytest.raises(ValueError, match=r"nested|large"):
        written(an_object(**item))


@pytest.mark.parametrize("depth", [50, 200, 300, 320, 400, 600, 900, 990])
@pytest.mark.parametrize("inner", [1, [1] * 110_000], ids=["few", "many"])
def test_what_is_written_can_be_counted(depth: int, inner: Any) -> None:
    """However deep an object is, it is refused, or it is found again."""
    for _ in range(depth):
        inner = {"a": inner}
    try:
        data = document(an_object(spec=inner))
    except ValueError:
        return
    assert (counted(data).objects, counted(data).problem) == (1, None)


def test_a_name_has_its_length() -> None:
    """What an object is called fits into a message, whatever it is called."""
    item = {"metadata": {"name": "n" * 1_000_000, "namespace": "a\nb"}}
    assert named(item) == f"a b/{'n' * 316}…"


def nested(depth: int) -> Any:
    """Return a value below ``depth`` lists."""
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


def test_what_is_nested_deeply_is_written() -> None:
    """Two hundred levels are more than any kind of object has."""
    text = written(nested(200))
    assert text.count("-") == 200
    assert yaml.safe_load(text) == nested(200)


@pytest.mark.parametrize("depth", [201, 5000, 100_000])
def test_what_is_nested_too_deeply_is_refused(depth: int) -> None:
    """An object made to exhaust the writer is refused by name, and does not end the process, by whichever Python."""
    with pytest.raises(ValueError, match="nested"):
        written(nested(depth))


def test_what_a_cluster_sets_itself_is_left_out() -> None:
    """Uids, owners, versions, managers, status, and annotations of controllers are of the cluster that was."""
    item = {
        "status": {"phase": "Active"},
        "kind": "ConfigMap",
        "data": {"status": "kept"},
        "metadata": {
            "uid": "u",
            "labels": {"a": "b"},
            "resourceVersion": "1",
            "generation": 3,
            "creationTimestamp": "t",
            "deletionTimestamp": "t",
            "deletionGracePeriodSeconds": 0,
            "selfLink": "/x",
            "managedFields": [{"manager": "x"}],
            "ownerReferences": [{"uid": "u"}],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
            "namespace": "n",
            "name": "x",
        },
        "apiVersion": "v1",
    }
    before = copy.deepcopy(item)
    assert cleaned(item) == an_object(data={"status": "kept"}) | {
        "metadata": {"name": "x", "namespace": "n", "labels": {"a": "b"}}
    }
    assert list(cleaned(item)) == ["apiVersion", "kind", "metadata", "data"]
    assert list(cleaned(item)["metadata"]) == ["name", "namespace", "labels"]
    assert item == before


def test_a_volume_can_be_bound_again() -> None:
    """A volume stays reserved for its claim by name, and a claim for its volume; no uid of the old cluster is left."""
    claim_ref = {"kind": "PersistentVolumeClaim", "name": "data", "namespace": "n", "uid": "u", "resourceVersion": "7"}
    bound = {"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes", "kept": "yes"}
    volume = an_object(spec={"claimRef": claim_ref, "local": {"path": "/d"}}) | {"kind": "PersistentVolume"}
    claim = an_object(spec={"volumeName": "pv"}) | {"kind": "PersistentVolumeClaim"}
    claim["metadata"]["annotations"] = bound
    assert cleaned(volume)["spec"] == {
        "claimRef": {"kind": "PersistentVolumeClaim", "name": "data", "namespace": "n"},
        "local": {"path": "/d"},
    }
    assert cleaned(claim)["metadata"]["annotations"] == {"kept": "yes"}
    assert cleaned(claim)["spec"] == {"volumeName": "pv"}


def test_a_service_keeps_its_addresses() -> None:
    """Cluster addresses and node ports come back: clients have them in their configuration."""
    spec = {"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"], "ports": [{"nodePort": 30080}]}
    assert cleaned(an_object(spec=spec) | {"kind": "Service"})["spec"] == spec


def test_a_job_can_be_made_again() -> None:
    """What the job controller adds by uid would be refused in a new object; a selector of one's own is kept."""
    labels = {"controller-uid": "u", "batch.kubernetes.io/controller-uid": "u", "app": "x"}
    spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {}}}
    job = an_object(spec=spec) | {"apiVersion": "batch/v1", "kind": "Job"}
    assert cleaned(job)["spec"] == {"template": {"metadata": {"labels": {"app": "x"}}, "spec": {}}}
    by_hand = {**job, "spec": {**spec, "manualSelector": True}}
    assert cleaned(by_hand)["spec"] == by_hand["spec"]
    foreign = {**job, "apiVersion": "batch.volcano.sh/v1alpha1"}
    assert cleaned(foreign)["spec"] == spec


def test_a_bare_pod_may_go_to_another_node() -> None:
    """The node that a pod ran on may be the one that died."""
    pod = an_object(spec={"nodeName": "cp-1", "containers": []}) | {"kind": "Pod"}
    assert cleaned(pod)["spec"] == {"containers": []}


def test_what_to_know_before_applying_is_said() -> None:
    """A job that has ended would run again, and an old token is worth nothing in a new cluster."""
    ended = {"conditions": [{"type": "Complete", "status": "True"}]}
    job = an_object(status=ended) | {"apiVersion": "batch/v1", "kind": "Job"}
    token = an_object(type="kubernetes.io/service-account-token") | {"kind": "Secret"}
    assert ["once more" in text for text in remarks(job)] == [True]
    assert ["token" in text for text in remarks(token)] == [True]
    assert list(remarks(job | {"status": {}})) == list(remarks(an_object())) == []


def test_every_recorded_object_comes_back() -> None:
    """All that a real cluster had, cleaned, written and read again, is the same."""
    objects = [
        item for answer in recording().values() if isinstance(answer, dict) for item in answer.get("items") or ()
    ]
    assert len(objects) > 1000
    for item in map(cleaned, objects):
        assert yaml.load(written(item), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) == item


def test_service_accounts_have_their_own_documents() -> None:
    """Secrets and RBAC belong to one source, a custom kind of the same plural to the other."""
    assert all(is_account_kind(kind) for kind in ACCOUNT_KINDS)
    assert is_account_kind(Kind("rbac.authorization.k8s.io", "v1beta1", "roles", "Role", namespaced=True))
    assert not is_account_kind(Kind("example.test", "v1", "secrets", "Secret", namespaced=True))


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_objects_are_counted_however_they_arrive(piece: int) -> None:
    """Pieces of any size give the same count; comments are no objects."""
    objects = [an_object(data={"text": text}) for text in ODD]
    counter = counted(document(*objects), piece)
    assert (counter.objects, counter.problem) == (len(ODD), None)
    assert counted(b"# nothing\n").objects == 0


@pytest.mark.parametrize(
    "damage",
    [
        b"---\na: &x [1]\nb: *x\napiVersion: v1\nkind: x\nmetadata: {}\n",
        b"---\napiVersion: v1\nkind: x\nmetadata: &x {}\n",
        b"---\n- apiVersion\n- kind\n- metadata\n",
        b"---\napiVersion: v1\nkind: x\n",
        b"---\napiVersion: v1\nkind: x\nmetadata: {\n",
        b"---\napiVersion: v1\nkind: x\nmetadata: {}\n--- x\n",
        b"---\n\xff\xfe\n",
        b"---\n" + b"[" * 20000,
    ],
)
def test_damage_is_seen(damage: bytes) -> None:
    """Aliases, other YAML, and no YAML at all are a problem, and name how far it was good."""
    problem = counted(document(an_object()) + damage).problem
    assert problem is not None
    assert problem.startswith("after 1 objects: ")


def test_an_object_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A document that lost its separators does not fill the memory."""
    monkeypatch.setattr(kubernetes_yaml, "_MAX_OBJECT", 1000)
    assert counted(b"# head\n---\n" + b"x" * 3000, 100).problem == "an object in it is too long"

"""Values like those that an API server keeps in etcd: built-in kinds as protobuf, custom ones as JSON, Secrets sealed.

Each is a pure function of a seed, its key and a simulated time in seconds since 1970: what never changes of an object
(uid, spec) follows from seed and key, what does (status, heartbeats, managed fields) from the time as well.
"""

import json
import uuid
from random import Random

_WORDS = tuple(
    """
    address agent annotation apply backoff batch cache cluster config controller daemon default deploy digest disk
    endpoint env exporter fleet flush gateway group handler host image info ingress interval label latency level
    limit local log main memory metric mirror mode node observe patch path policy port probe proxy queue quota ready
    region registry reload replica report request retry rollout route scale schedule secret selector server service
    sidecar site source stage status storage sync table target team threshold timeout tls token topic trace unit
    user version volume watch webhook window worker zone
    """.split()  # noqa: SIM905 - a hundred quotes would read worse
)


def pb(*fields: tuple[int, bytes | str | int]) -> bytes:
    """Encode protobuf fields: integers as varints, everything else with its length before it."""
    out = bytearray()
    for number, value in fields:
        if isinstance(value, int):
            out += _varint(number << 3) + _varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += _varint(number << 3 | 2) + _varint(len(data)) + data
    return bytes(out)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def stable(seed: int, key: str) -> Random:
    """Return the random numbers that belong to an object for all its life."""
    return Random(f"{seed}:{key}")


def _uid(rng: Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def _time(seconds: float) -> bytes:
    whole = int(seconds)
    return pb((1, whole), (2, round((seconds - whole) * 1e6) * 1000))


def _text(rng: Random, words: int) -> str:
    return " ".join(rng.choices(_WORDS, k=words))


def _managed(manager: str, api: str, when: float, owned: str, part: str = "") -> bytes:
    """Say who owns which fields: ``owned`` is like ``metadata:labels;spec:replicas,selector``."""
    groups = (group.partition(":") for group in owned.split(";"))
    tree: dict[str, dict[str, object]] = {
        f"f:{group}": {f"f:{name}": {} for name in names.split(",")} for group, _, names in groups
    }
    fields = json.dumps(tree, separators=(",", ":"))
    return pb((1, manager), (2, "Update"), (3, api), (4, _time(when)), (6, "FieldsV1"), (7, pb((1, fields))), (8, part))


def _envelope(api: str, kind: str, *body: tuple[int, bytes | str | int]) -> bytes:
    return b"k8s\0" + pb((1, pb((1, api), (2, kind))), (2, pb(*body)), (3, ""), (4, ""))


def _meta(rng: Random, key: str, created: float, *more: tuple[int, bytes | str | int], labels: str = "") -> bytes:
    parts = key.split("/")
    namespace = parts[-2] if len(parts) > 4 else ""
    marks = [(11, pb((1, label.partition("=")[0]), (2, label.partition("=")[2]))) for label in labels.split()]
    return pb((1, parts[-1]), (3, namespace), (4, ""), (5, _uid(rng)), (6, ""), (8, _time(created)), *marks, *more)


def lease(seed: int, key: str, now: float, *, seconds: int, created: float) -> bytes:
    """Return a coordination Lease, renewed now."""
    rng = stable(seed, key)
    holder = key.rsplit("/", 1)[1]
    owned = "metadata:ownerReferences;spec:holderIdentity,leaseDurationSeconds,renewTime,acquireTime,leaseTransitions"
    meta = _meta(rng, key, created, (17, _managed("kubelet", "coordination.k8s.io/v1", now, owned)))
    renewed = now + stable(seed, f"{key}@{now}").random()  # API servers store these to the microsecond
    spec = pb((1, f"{holder}_{_uid(rng)}"), (2, seconds), (4, _time(renewed)), (5, 1))
    return _envelope("coordination.k8s.io/v1", "Lease", (1, meta), (2, spec))


def node(seed: int, key: str, now: float, *, created: float) -> bytes:
    """Return a Node whose conditions were reported now."""
    rng = stable(seed, key)
    name = key.rsplit("/", 1)[1]
    labels = f"beta.kubernetes.io/arch=amd64 kubernetes.io/hostname={name} kubernetes.io/os=linux"
    names = "addresses,allocatable,capacity,conditions,images,nodeInfo,volumesAttached,volumesInUse,daemonEndpoints"
    meta = _meta(rng, key, created, (17, _managed("kubelet", "v1", now, f"status:{names}", "status")), labels=labels)
    conditions = [
        (4, pb((1, kind), (2, state), (3, _time(now)), (4, _time(created)), (5, f"Kubelet{kind}"), (6, text)))
        for kind, state, text in (
            ("MemoryPressure", "False", "kubelet has sufficient memory available"),
            ("DiskPressure", "False", "kubelet has no disk pressure"),
            ("PIDPressure", "False", "kubelet has sufficient PID available"),
            ("Ready", "True", "kubelet is posting ready status"),
        )
    ]
    images = [
        (8, pb((1, f"registry.example/{rng.choice(_WORDS)}/{rng.choice(_WORDS)}@sha256:{rng.randbytes(32).hex()}"),
               (1, f"registry.example/{rng.choice(_WORDS)}:v1.{rng.randrange(40)}"), (2, rng.randrange(1 << 28))))
        for _ in range(40)
    ]  # fmt: skip
    return _envelope("v1", "Node", (1, meta), (2, pb((1, "10.244.0.0/24"))), (3, pb(*conditions, *images)))


def _template(rng: Random, app: str) -> bytes:
    env = [(7, pb((1, word.upper()), (2, _text(rng, 2)))) for word in rng.sample(_WORDS, 8)]
    mounts = [(9, pb((1, word), (3, f"/etc/{app}/{word}"))) for word in rng.sample(_WORDS, 4)]
    probe = pb((1, pb((1, "/healthz"), (2, 8080), (4, "HTTP"))), (2, 5), (3, 10), (4, 1), (5, 3))
    image = f"registry.example/{app}:v1.{rng.randrange(40)}.{rng.randrange(10)}"
    container = pb((1, "main"), (2, image), *env, *mounts, (10, probe), (11, probe), (14, "Always"), (18, "File"))
    return pb((2, container), (3, "Always"), (6, "ClusterFirst"), (9, "default"), (19, "default-scheduler"))


_POD_SPEC = (
    "metadata:generateName,labels,ownerReferences;spec:affinity,containers,dnsPolicy,enableServiceLinks,restartPolicy,"
    "schedulerName,securityContext,serviceAccount,serviceAccountName,terminationGracePeriodSeconds,tolerations,volumes;"
    "containers:env,image,imagePullPolicy,livenessProbe,name,ports,readinessProbe,resources,terminationMessagePath,"
    "terminationMessagePolicy,volumeMounts"
)


def pod(seed: int, key: str, now: float, *, created: float, phase: str = "Running") -> bytes:
    """Return a Pod whose status was written now."""
    rng = stable(seed, key)
    app = key.rsplit("/", 1)[1].rsplit("-", 2)[0]
    owned = "status:conditions,containerStatuses,hostIP,hostIPs,phase,podIP,podIPs,startTime"
    meta = _meta(
        rng, key, created,
        (13, pb((1, "ReplicaSet"), (3, app), (4, _uid(rng)), (5, "apps/v1"))),
        (17, _managed("kube-controller-manager", "v1", created, _POD_SPEC)),
        (17, _managed("kubelet", "v1", now, owned, "status")),
        labels=f"app={app} pod-template-hash={rng.getrandbits(40):010x} tier={rng.choice(_WORDS)}",
    )  # fmt: skip
    spec = _template(rng, app) + pb((10, f"node-{rng.randrange(3)}"))
    conditions = [
        (2, pb((1, kind), (2, "True"), (4, _time(now if kind == "Ready" else created))))
        for kind in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    ]
    state = pb((1, "main"), (2, pb((2, pb((1, _time(now)))))), (4, 1), (5, int(now - created) // 3600))
    ids = (
        (6, f"registry.example/{app}@sha256:{rng.randbytes(32).hex()}"),
        (8, f"containerd://{rng.randbytes(32).hex()}"),
    )
    address = f"10.244.{rng.randrange(3)}.{rng.randrange(2, 250)}"
    status = pb((1, phase), *conditions, (5, "10.77.0.11"), (6, address), (7, _time(created)), (8, state + pb(*ids)))
    return _envelope("v1", "Pod", (1, meta), (2, spec), (3, status))


def workload(seed: int, key: str, now: float, *, kind: str, created: float) -> bytes:
    """Return a Deployment or a ReplicaSet, edited now."""
    rng = stable(seed, key)
    app = key.rsplit("/", 1)[1]
    owned = "status:availableReplicas,conditions,observedGeneration,readyReplicas,replicas,updatedReplicas"
    meta = _meta(
        rng, key, created, (7, 1 + int(now - created)),
        (17, _managed("kubectl-client-side-apply", "apps/v1", created, _POD_SPEC)),
        (17, _managed("kube-controller-manager", "apps/v1", now, owned, "status")),
        labels=f"app={app} team={rng.choice(_WORDS)}",
    )  # fmt: skip
    conditions = [
        (6, pb((1, name), (2, "True"), (4, f"{name}Reason"), (5, _text(rng, 8)), (6, _time(now)), (7, _time(created))))
        for name in ("Available", "Progressing")
    ]
    return _envelope("apps/v1", kind, (1, meta), (2, _template(rng, app)), (3, pb((1, 2), (2, 2), (3, 2), *conditions)))


def config_map(seed: int, key: str, now: float, *, created: float) -> bytes:
    """Return a ConfigMap of 1 to 13 KB: settings line by line, some of them other ones after each edit."""
    rng = stable(seed, key)
    lines = [f"{rng.choice(_WORDS)}.{rng.choice(_WORDS)}: {_text(rng, 5)}" for _ in range(rng.randrange(20, 260))]
    if now > created:
        edit = stable(seed, f"{key}@{now}")
        for _ in range(3):
            lines[edit.randrange(len(lines))] = f"{edit.choice(_WORDS)}: {_text(edit, 5)}"
    meta = _meta(rng, key, created, (17, _managed("kubectl-client-side-apply", "v1", now, "data:config.yaml")))
    return _envelope("v1", "ConfigMap", (1, meta), (2, pb((1, "config.yaml"), (2, "\n".join(lines)))))


def secret(seed: int, key: str, now: float) -> bytes:
    """Return a Secret as an API server with secretbox encryption stores it: nothing in it compresses."""
    rng = stable(seed, f"{key}@{now}")
    return b"k8s:enc:secretbox:v1:key1:" + rng.randbytes(rng.choice((400, 600, 1200, 2400, 5000, 14000)))


def service_account(seed: int, key: str, now: float) -> bytes:
    """Return a ServiceAccount."""
    return _envelope("v1", "ServiceAccount", (1, _meta(stable(seed, key), key, now, labels="managed-by=site")))


def endpoint_slice(seed: int, key: str, now: float, *, created: float) -> bytes:
    """Return an EndpointSlice whose addresses were found anew now."""
    rng = stable(seed, f"{key}@{now}")
    owned = "metadata:annotations,generateName,labels,ownerReferences;root:addressType,endpoints,ports"
    managed = _managed("kube-controller-manager", "discovery.k8s.io/v1", now, owned)
    meta = _meta(stable(seed, key), key, created, (17, managed))
    targets = [
        (
            2,
            pb(
                (1, f"10.244.{rng.randrange(3)}.{rng.randrange(2, 250)}"),
                (2, pb((1, 1))),
                (4, _uid(rng)),
                (6, "node-1"),
            ),
        )
        for _ in range(4)
    ]
    return _envelope("discovery.k8s.io/v1", "EndpointSlice", (1, meta), *targets, (3, pb((1, "http"), (3, 8080))))


def custom(seed: int, key: str, now: float, *, created: float) -> bytes:
    """Return a custom resource as JSON, its status reconciled now."""
    rng = stable(seed, key)
    _, _, group, plural, namespace, name = key.split("/")
    document = {
        "apiVersion": f"{group}/v1",
        "kind": plural[:-1].capitalize(),
        "metadata": {"name": name, "namespace": namespace, "uid": _uid(rng), "creationTimestamp": int(created)},
        "spec": {word: _text(rng, 3) for word in rng.sample(_WORDS, 20)},
        "status": {
            "observedGeneration": 1 + int(now - created),
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": int(now), "reason": "Reconciled"}],
        },
    }
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


_HAPPENED = (
    ("Pulled", "Container image already present on machine"),
    ("Created", "Created container main"),
    ("Started", "Started container main"),
    ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503"),
    ("Scheduled", "Successfully assigned to node"),
    ("BackOff", "Back-off restarting failed container main in pod"),
)


def event(seed: int, key: str, now: float, *, count: int = 1) -> bytes:
    """Return an Event about the object that its name begins with."""
    rng = stable(seed, key)
    about = key.rsplit("/", 1)[1].rsplit(".", 1)[0]
    reason, message = rng.choice(_HAPPENED)
    owned = "root:count,firstTimestamp,involvedObject,lastTimestamp,message,reason,reportingComponent,source,type"
    meta = _meta(rng, key, now, (17, _managed("kubelet", "v1", now, owned)))
    involved = pb((1, "Pod"), (2, key.split("/")[-2]), (3, about), (4, _uid(rng)), (5, "v1"))
    body = ((2, involved), (3, reason), (4, f"{message} {about}"), (6, _time(now)), (7, _time(now)), (8, count))
    return _envelope("v1", "Event", (1, meta), *body, (9, "Normal"), (15, "kubelet"))

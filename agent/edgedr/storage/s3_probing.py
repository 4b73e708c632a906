"""Trying what a bucket does and what a credential may there: a server's word is no proof.

The probes lie below the node's own names, so that the very policies are asked that guard its backups; a reader passes
them over, as their names are no ids of backups. Nothing else is written or deleted; what the bucket is set to is never
changed. What the credential may delete of them is gone in the end.
"""

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from edgedr.credentials import Credential
from edgedr.errors import ObjectMissing, Unreachable
from edgedr.model import Class
from edgedr.storage.s3_asking import YES, Asking, Reply
from edgedr.storage.s3_client import read_key
from edgedr.storage.s3_facts import Answer, BucketFacts, Told, default_retention, read_rules
from edgedr.storage.s3_options import S3Options
from edgedr.storage.s3_trouble import Taken, Unable

_RETAINED, _SHORTENED = timedelta(seconds=60), timedelta(seconds=10)
_MODES = ("COMPLIANCE", "GOVERNANCE")
_FIRST, _SECOND, _THIRD = b"the first of three\n", b"the second of three\n", b"the third of three\n"
_PAGE = 100


def probe(
    options: S3Options,
    own: Mapping[Class, str],
    others: Sequence[str],
    *,
    clock: Callable[[], datetime],
    throughput: int = 1 << 20,
) -> BucketFacts:
    """Try everything. ``own`` are the names that a node's fulls and deltas are below, ``others`` those of other nodes.

    ``throughput`` is how many bytes are sent to measure it, 0 for none. Raises what storages raise where the server is
    out of reach, or refuses all that is asked.
    """
    with _forged(options) as forged:
        return _Probe(Asking(options, forged), own, others, clock, throughput).everything()


@contextmanager
def _forged(options: S3Options) -> Iterator[S3Options]:
    """Give the same options with a wrong secret, in a file in memory; the key's id is right where it is known."""
    key = {} if options.credential is None else read_key(options.credential.read(), str(options.credential))
    wrong = {"aws_access_key_id": "DOCTOR" + secrets.token_hex(7).upper(), **key}
    wrong["aws_secret_access_key"] = secrets.token_hex(20)
    descriptor = os.memfd_create("edgedr-doctor")
    try:
        os.write(descriptor, json.dumps(wrong).encode())
        yield replace(options, credential=Credential.parse(f"file:/proc/self/fd/{descriptor}"))
    finally:
        os.close(descriptor)


class _Probe:
    def __init__(
        self,
        asking: Asking,
        own: Mapping[Class, str],
        others: Sequence[str],
        clock: Callable[[], datetime],
        throughput: int,
    ) -> None:
        self._asking, self._clock, self._size = asking, clock, throughput
        run = f"doctor-{secrets.token_hex(4)}"
        self._own = f"{asking.root}{own[Class.FULL]}/"
        self._below = f"{self._own}{run}"
        self._key = f"{self._below}/probe"
        self._delta = f"{asking.root}{own[Class.DELTA]}/{run}/probe"
        self._others = [f"{asking.root}{other}/{run}/probe" for other in others]
        self._facts = BucketFacts(asking.options.url, asking.root)

    def everything(self) -> BucketFacts:
        """Ask it all; what depends on an answer comes after it."""
        first = self._put_first()
        if first.told.yes:
            self._put_again(first)
        self._look(first)
        facts = self._facts
        if first.error is not None and not any(told.yes for told in (facts.lists, facts.lists_all, facts.gets)):
            raise first.error  # nothing at all is allowed: the bucket, the key or the way there is wrong
        self._put_as_others()
        self._read_settings()
        if first.told.yes:
            self._measure()
        self._delete(first)
        self._retain()
        self._asking.clean_up(versions=self._facts.deletes_versions.yes)
        left = self._asking.made.values()
        return replace(self._facts, offset=self._asking.ours.offset, left_objects=len(left), left_bytes=sum(left))

    def _note(self, **told: Any) -> None:
        self._facts = replace(self._facts, **told)

    def _put_first(self) -> Reply:
        reply = self._asking.put_new(self._key, _FIRST)
        if isinstance(reply.error, Unable):
            self._asking.conditional = False
            self._note(conditional=Told(Answer.NO, reply.told.reason))
            reply = self._asking.put_new(self._key, _FIRST)
        if isinstance(reply.error, Unreachable):
            raise reply.error
        if isinstance(reply.error, Taken):  # by our own first attempt, whose answer was lost
            reply = Reply(YES)
        self._note(puts=reply.told)
        return reply

    def _put_again(self, first: Reply) -> None:
        if self._asking.conditional:
            again = self._asking.put_new(self._key, _SECOND)
            told = Told(Answer.NO, "a second object was taken all the same") if again.told.yes else again.told
            self._note(conditional=YES if isinstance(again.error, Taken) else told)
        self._note(puts_deltas=self._asking.put_new(self._delta, _FIRST).told)
        plain = self._asking.put(self._key, _THIRD)
        none = Told(Answer.NO, "what is put gets no version")
        self._note(overwrites=plain.told, versions=YES if plain.version or first.version else none)

    def _look(self, first: Reply) -> None:
        """List and get: our probe where one could be put, else the smallest object that a list shows."""
        ask = self._asking.ask
        lists = ask("list_objects_v2", Prefix=self._own, MaxKeys=_PAGE)
        versions = ask("list_object_versions", Prefix=self._own, MaxKeys=_PAGE)
        self._note(lists=lists.told, lists_versions=versions.told)
        self._note(lists_all=ask("list_objects_v2", MaxKeys=1).told)
        key, old_key, old = self._key, self._key, first.version
        if not first.told.yes:
            key = _smallest(lists, ask("list_objects_v2", Prefix=self._asking.root, MaxKeys=_PAGE))
            newest: dict[str, Any] = next(iter(versions.fields.get("Versions", ())), {})
            old_key, old = newest.get("Key", ""), newest.get("VersionId")
        nothing = Told(Answer.UNKNOWN, "there is nothing to get")
        if key:
            self._note(gets=self._asking.get(Key=key).told, heads=ask("head_object", Key=key).told)
            self._note(anonymous_gets=self._asking.get(by=self._asking.nobody, Key=key).told)
        else:
            self._note(gets=nothing, heads=nothing)
        if old is not None:
            self._note(gets_versions=self._asking.get(Key=old_key, VersionId=old).told)

    def _put_as_others(self) -> None:
        """Put below another node's names, with a wrong secret, with none."""
        put = self._asking.put_new
        elsewhere = [put(key, _FIRST).told for key in self._others]
        if elsewhere:
            self._note(puts_elsewhere=next((told for told in elsewhere if told.yes), elsewhere[0]))
        self._note(takes_forged=put(f"{self._below}/forged", _FIRST, by=self._asking.forged).told)
        self._note(anonymous_puts=put(f"{self._below}/anonymous", _FIRST, by=self._asking.nobody).told)
        listed = self._asking.ask("list_objects_v2", by=self._asking.nobody, Prefix=self._own, MaxKeys=1)
        self._note(anonymous_lists=listed.told)

    def _read_settings(self) -> None:
        ask = self._asking.ask
        versioning = ask("get_bucket_versioning")
        if versioning.told.yes and not self._facts.puts.yes:
            on = versioning.fields.get("Status") == "Enabled"
            self._note(versions=YES if on else Told(Answer.NO, "versioning is not switched on"))
        lock = ask("get_object_lock_configuration")
        configuration = lock.fields.get("ObjectLockConfiguration", {})
        if configuration.get("ObjectLockEnabled") == "Enabled":
            self._note(locks=YES, lock_default=default_retention(configuration))
        elif lock.told.yes or isinstance(lock.error, Unable) or "ObjectLockConfiguration" in lock.told.reason:
            self._note(locks=Told(Answer.NO, lock.told.reason))
        else:
            self._note(locks=Told(Answer.UNKNOWN, lock.told.reason))
        rules = ask("get_bucket_lifecycle_configuration")
        readable = rules.told.yes or "NoSuchLifecycleConfiguration" in rules.told.reason
        self._note(rules_told=YES if readable else Told(Answer.UNKNOWN, rules.told.reason))
        self._note(rules=read_rules(rules.fields.get("Rules", ())))
        if self._facts.versions.yes:  # it is on: to switch it on changes nothing
            same = ask("put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"})
            self._note(changes_settings=same.told)

    def _measure(self) -> None:
        if not self._size:
            return
        data = secrets.token_bytes(self._size)  # no link can compress it
        started = time.monotonic()
        if self._asking.put_new(f"{self._below}/throughput", data).told.yes:
            self._note(throughput=self._size / max(time.monotonic() - started, 1e-6))

    def _delete(self, first: Reply) -> None:
        """Delete a probe, or a name that nobody has: whether one may is the same question."""
        deleted = self._asking.delete(self._key)
        self._note(deletes=deleted.told)
        if not self._facts.versions.yes:
            return
        tried = deleted.version or first.version  # a mark is never locked, so that it tells what the policy says
        self._note(deletes_versions=self._asking.delete_version(self._key, tried).told)
        if self._facts.gets_versions.yes and first.version not in {None, tried}:
            older = self._asking.ask("head_object", Key=self._key, VersionId=first.version)
            if isinstance(older.error, ObjectMissing):
                self._note(versions=Told(Answer.NO, "it gives ids to versions, and does not keep them"))

    def _retain(self) -> None:
        """See whether a lock really holds, where nothing else would keep this credential from deleting."""
        facts = self._facts
        why = "the bucket keeps no versions" if facts.versions.no else "this credential may not try to break it"
        if facts.puts.yes and facts.versions.yes and facts.deletes_versions.yes:
            key = f"{self._below}/retained"
            for mode in _MODES:
                kept = self._asking.put_retained(key, _FIRST, self._retention(mode, _RETAINED))
                if kept.version is not None:
                    self._break(key, kept.version, mode)
                    return
                why = kept.told.reason
        unknown = Told(Answer.UNKNOWN, why)
        self._note(retention_holds=unknown, retention_stays=unknown)

    def _break(self, key: str, version: str, mode: str) -> None:
        ask = self._asking.ask
        shorter = self._retention(mode, _SHORTENED)
        shortened = ask("put_object_retention", Key=key, VersionId=version, Retention=shorter)
        deleted = self._asking.delete_version(key, version)
        holds = _opposite(deleted.told)
        if deleted.told.yes and ask("head_object", Key=key, VersionId=version).told.yes:
            holds = Told(Answer.YES, "it says that it deleted the version, which is still there")
            self._asking.made[key, version] = len(_FIRST)
        self._note(retention_mode=mode, retention_holds=holds, retention_stays=_opposite(shortened.told))

    def _retention(self, mode: str, span: timedelta) -> dict[str, Any]:
        """Return a retention that ends after a while by the server's clock."""
        ahead = timedelta(seconds=self._asking.ours.offset or 0.0)
        return {"Mode": mode, "RetainUntilDate": self._clock() - ahead + span}


def _opposite(told: Told) -> Told:
    """Turn whether something could be done into whether it was kept from being done."""
    answer = {Answer.YES: Answer.NO, Answer.NO: Answer.YES}.get(told.answer, Answer.UNKNOWN)
    return Told(answer, told.reason)


def _smallest(*replies: Reply) -> str:
    """Return the key of the smallest object that was listed; an empty one if there is none."""
    found = [each for reply in replies for each in reply.fields.get("Contents", ())]
    return str(min(found, key=lambda each: int(each["Size"]))["Key"]) if found else ""

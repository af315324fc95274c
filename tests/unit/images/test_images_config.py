"""Configuration given by users."""

from __future__ import annotations

import pytest

from bulkhead.errors import Refused
from bulkhead.images import ImageConfig
from bulkhead.images.changes import changed, from_fields


def test_changes_are_those_of_a_dockerfile() -> None:
    config = changed(
        ImageConfig(env=("A=0",)),
        [
            'ENTRYPOINT ["/init"]',
            "CMD nginx -g 'daemon off;'",
            "ENV A=1",
            "ENV B two words",
            'ENV C="x y" D=z',
            "EXPOSE 80 53/udp",
            'VOLUME ["/data"]',
            "WORKDIR /srv",
            "user=www",
            "LABEL a=b",
            "LABEL c=d",
            "STOPSIGNAL SIGQUIT",
        ],
    )
    assert config == ImageConfig(
        entrypoint=("/init",),
        cmd=("/bin/sh", "-c", "nginx -g 'daemon off;'"),
        env=("A=1", "B=two words", "C=x y", "D=z"),
        exposed_ports=("53/udp", "80/tcp"),
        volumes=("/data",),
        workdir="/srv",
        user="www",
        labels={"a": "b", "c": "d"},
        stop_signal="SIGQUIT",
    )


def test_every_wrong_change_is_told() -> None:
    wrong = ["RUN x", "nonsense", "CMD [1]", "CMD [", "CMD", "ENV =x", "ENV A", "EXPOSE 0", "WORKDIR rel", "LABEL x"]
    with pytest.raises(Refused) as caught:
        changed(ImageConfig(), wrong)
    assert len(caught.value.problems) == len(wrong)


def test_fields_by_the_names_of_the_api() -> None:
    fields = {"command": ["x"], "entrypoint": None, "ports": ("80", "80/tcp"), "labels": {"a": "b"}, "env": []}
    assert from_fields(fields) == ImageConfig(cmd=("x",), exposed_ports=("80/tcp",), labels={"a": "b"})
    with pytest.raises(Refused, match="'colour' is not known"):
        from_fields({"colour": "red"})
    with pytest.raises(Refused, match="exposed port"):
        from_fields({"ports": ["http"]})

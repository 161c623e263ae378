"""Which connection goes where too many have not shown that they may send."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jitvault.audit.receivers.http_device import Connection, first_to_go


@given(st.integers(2, 50), st.data())
def test_many_of_one_address_do_not_push_out_one_of_another(number: int, data: st.DataObject) -> None:
    addresses = ["10.0.0.6"] * number
    addresses.insert(data.draw(st.integers(0, number)), "10.0.0.5")
    strangers = {at: Connection(address, float(at)) for at, address in enumerate(addresses)}
    assert first_to_go(strangers) == addresses.index("10.0.0.6"), "the oldest of the many"

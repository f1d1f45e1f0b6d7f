"""Token ids in the store of a study."""

import jax.numpy as jnp
from token_task import LENGTH, MeanEmbedding, make_model, make_task, same

from unlearnkit.base import Tokens
from unlearnkit.models import from_linen
from unlearnkit.studies.store import content_hash
from unlearnkit.studies.store.packing import pack, unpack


def test_a_task_comes_back_from_the_store():
    task = make_task()
    packed, arrays = pack(task)
    assert arrays["retain/x"].dtype == "int32"
    found = unpack(packed, arrays)
    assert same(found, task)


def test_a_vocabulary_is_a_part_of_a_key():
    data = make_task().retain
    others = [
        data._replace(normalisation=Tokens(11)),
        data._replace(normalisation=Tokens(10, pad=1)),
        data._replace(x=data.x.astype(jnp.int16)),
        data._replace(x=data.x.at[0, 0].add(1)),
    ]
    assert len({content_hash(one) for one in (data, *others)}) == 5
    assert content_hash(data) == content_hash(make_task().retain)


def test_a_network_of_tokens_is_a_part_of_a_key():
    model = make_model()
    again, larger = (
        from_linen(MeanEmbedding(vocabulary), input_shape=(LENGTH,), input_dtype="int32")
        for vocabulary in (10, 11)
    )
    assert content_hash(model) == content_hash(again) != content_hash(larger)



def test_training_images_are_never_evaluated_on_unasked(source: Source, manifest: Manifest) -> None:
    def with_splits(*splits: str) -> Source:
        records = [replace(one, split=splits[n % len(splits)]) for n, one in enumerate(source.records)]
        return replace(source, records=tuple(records))

    chosen = select(with_splits("train", "val"), [manifest])
    assert chosen.split == "val"
    assert "training images are left out" in chosen.reason
    assert select(with_splits("train", "val", "test"), [manifest]).split == "test"
    with pytest.raises(ReinceptionError, match="holds training images only"):
        select(with_splits("train"), [manifest])
    assert select(with_splits("train"), [manifest], "train").split == "train"

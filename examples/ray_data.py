"""A folder of images through Ray Data: `python ray_data.py MODEL FOLDER OUT`, on this machine or on a Ray cluster."""

import sys

import ray

import reinception as ri


def main(model: str, folder: str, out: str, workers: int = 2) -> None:
    images = ray.data.read_binary_files(folder, include_paths=True).rename_columns({"bytes": "image"})
    # The class is made once in each worker; a bad image is a row with its error.
    # Ray counts processors. Workers that held them all, as two would on a machine of two, leave none to reading.
    answers = images.map_batches(
        ri.Predictor,
        fn_constructor_args=(model,),
        batch_size=32,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=0,
    )
    answers.write_parquet(out)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3])

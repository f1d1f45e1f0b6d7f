import sklearn.ensemble  # noqa: F401, which loads OpenMP
from threadpoolctl import threadpool_info


def test_linear_algebra_and_trees_run_on_one_thread():
    threads = {(pool["user_api"], pool["num_threads"]) for pool in threadpool_info()}
    assert threads == {("blas", 1), ("openmp", 1)}

from launch.answers import sampled

TASKS = ("vqa", "report", "classification", "detection", "landmark")
IDS = {i: f"patient{i // 5}/{TASKS[i % 5]}" for i in range(400)}


def test_a_limit_takes_every_task_of_a_set_that_asks_patient_after_patient_the_same():
    chosen = sampled(IDS, 40)
    assert len(chosen) == 40
    assert chosen == sorted(chosen)
    assert {TASKS[i % 5] for i in chosen} == set(TASKS)


def test_a_larger_limit_keeps_what_a_smaller_one_took():
    assert set(sampled(IDS, 20)) < set(sampled(IDS, 21))
    assert sampled(IDS, 0) == sampled(IDS, 1000) == list(IDS)

"""Whether beat sends, workers take, and how long it takes them."""

from __future__ import annotations

from boards.panels import Board, Choice, Panel, Query, Row, told

_QUEUE = '{queue=~"$queue"}'

BOARD = Board(
    name="workers",
    title="SoulBox: workers",
    description="Whether every queue is served, what waits in it, and how long tasks take.",
    choices=[
        Choice("queue", "Queue", "soulbox_queue_length", "queue"),
        Choice("task", "Task", "flower_task_runtime_seconds_count", "task"),
    ],
    items=[
        Panel(
            "Workers online",
            "Workers that Flower hears of.",
            "short",
            (Query("sum(flower_worker_online)", "online"),),
            kind="stat",
            width=6,
            limits=(1,),
            is_low_bad=True,
        ),
        Panel(
            "Oldest canary",
            "For how long no worker took the small task of the queue that is worst. Beat sends one "
            "each 30 s.",
            "s",
            (Query("max(soulbox_canary_age_seconds)", "oldest"),),
            kind="stat",
            width=6,
            limits=(90, 180),
            alert="CanaryMissing",
        ),
        Panel(
            "Redis answers",
            "Whether the Redis of the broker and that of the streams answer: 1 or 0.",
            "bool_yes_no",
            (
                Query("min(soulbox_broker_up)", "broker"),
                Query("min(soulbox_streams_up)", "streams"),
            ),
            kind="stat",
            width=6,
            limits=(1,),
            is_low_bad=True,
            most=1,
        ),
        Panel(
            "Tasks that failed",
            "Tasks that ended with an error within the hour, of all queues.",
            "short",
            (
                Query(
                    'sum(increase(flower_events_total{type="task-failed"}[1h])) or vector(0)',
                    "failed",
                ),
            ),
            kind="stat",
            width=6,
            limits=(1,),
        ),
        Row("Queues"),
        Panel(
            "Waiting tasks",
            "Tasks that wait in each queue; those of all hosts as `collect`. They are hints: what "
            "is due is in the tables.",
            "short",
            (
                Query(told(f"soulbox_queue_length{_QUEUE}", "queue"), "{{queue}}"),
                Query(told("soulbox_queue_unacknowledged"), "with workers"),
            ),
        ),
        Panel(
            "Canaries",
            "Time since a worker last took each queue's small task.",
            "s",
            (Query(told(f"soulbox_canary_age_seconds{_QUEUE}", "queue"), "{{queue}}"),),
            limits=(90, 180),
            alert="CanaryMissing",
        ),
        Panel(
            "Age of kept figures",
            "Figures that take long are taken by a worker, each minute.",
            "s",
            (Query(told("soulbox_figures_age_seconds", "figures"), "{{figures}}"),),
            width=24,
            limits=(180, 900),
            alert="FiguresOld",
        ),
        Row("Tasks"),
        Panel(
            "Tasks a second",
            "Tasks that ended well, by name.",
            "ops",
            (
                Query(
                    'sum by (task) (rate(flower_events_total{type="task-succeeded",task=~"$task"}'
                    "[$__rate_interval]))",
                    "{{task}}",
                ),
            ),
            is_stacked=True,
        ),
        Panel(
            "Time a task takes, 95 of 100",
            "Nineteen of twenty tasks of a name took at most this.",
            "s",
            (
                Query(
                    "histogram_quantile(0.95, sum by (task, le) (rate("
                    'flower_task_runtime_seconds_bucket{task=~"$task"}[$__rate_interval])))',
                    "{{task}}",
                ),
            ),
            # The time limit of most tasks.
            limits=(60, 120),
        ),
        Panel(
            "Work done, in workers",
            "How many processes the tasks of a name kept busy, on average.",
            "short",
            (
                Query(
                    "sum by (task) (rate(flower_task_runtime_seconds_sum"
                    '{task=~"$task"}[$__rate_interval]))',
                    "{{task}}",
                ),
            ),
            is_stacked=True,
        ),
        Panel(
            "Tasks in hand",
            "Tasks that each worker is at.",
            "short",
            (Query("flower_worker_number_of_currently_executing_tasks", "{{worker}}"),),
        ),
    ],
)

"""One deployable Prefect flow a file: order, condition, concurrency."""

import os

# XGBoost's threads wait for one another thousands of times a second. Waiting asleep costs an idle
# machine nothing to speak of; waiting awake made training 10 to 20 times slower on a busy one
# (2 cores under load: 300,000 rows 3 s instead of 30, 3,000 rows 0.3 s instead of 6).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

"""A nightly job in Airflow: the operator is just the command.

Exit code 75 (stopped, out of disk) and a lost worker are tried again, and go on where the dead one stopped; code 3 (done, some
rows set aside) is no failure.
"""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG("lists", schedule="0 2 * * *", start_date=datetime(2026, 1, 1), catchup=False):
    BashOperator(
        task_id="batch",
        bash_command=(
            "mecold batch /srv/shop/model --histories '/srv/shop/log/*.parquet' --out /srv/shop/lists/{{ ds }} -k 20 --json "
            "|| test $? -eq 3"
        ),
        retries=5,
        retry_delay=timedelta(minutes=10),
    )

"""What a Prefect server is told beside prefect.yaml: who looks after dead runs, who is alerted."""

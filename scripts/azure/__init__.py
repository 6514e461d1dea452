"""What a person or a pipeline runs against Azure: preflight, package, deploy, smoke test, verification."""

"""Executes API Management policies on this machine: the gateway of the laptop with `GATEWAY=apim`, and of the tests."""

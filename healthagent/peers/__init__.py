"""The edge to the other members: each is asked at its own pace, under a deadline, never in a handler."""

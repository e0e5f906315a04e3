"""The logic of the robot side without I/O: numpy only; time is an argument, in seconds of a monotonic clock."""

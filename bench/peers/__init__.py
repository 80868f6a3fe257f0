"""What others would use instead, each as a small server: ``PORT CONTROL_PORT``. An echo, and what comes on the control
port (each with its length in four bytes before it) goes to all clients as one text message."""

"""Where lines come from: the files of an audit device, their rotation, and what receivers write."""

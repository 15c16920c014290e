dist_man_MANS += man/hopperfs.8

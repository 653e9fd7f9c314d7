from benchmarks.serving import main

main()

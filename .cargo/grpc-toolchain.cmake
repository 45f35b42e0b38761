# Halves the time that gRPC's C++ core takes to compile; see docs/DECISIONS.md, "Build and tests".
set(CMAKE_PROJECT_grpc_INCLUDE ${CMAKE_CURRENT_LIST_DIR}/grpc-unity.cmake)

# The targets do not exist yet when this is included, so wait until the end of the directory.
if(CMAKE_VERSION VERSION_GREATER_EQUAL 3.19)
  cmake_language(EVAL CODE "cmake_language(DEFER CALL include [[${CMAKE_CURRENT_LIST_DIR}/grpc-unity-targets.cmake]])")
endif()

# The targets do not exist yet when this is included. So the rest is done at the end of the directory, or by CMake before 3.19
# (Debian 11), which can't wait for that, when each target is added.
if(CMAKE_VERSION VERSION_GREATER_EQUAL 3.19)
  cmake_language(EVAL CODE "cmake_language(DEFER CALL include [[${CMAKE_CURRENT_LIST_DIR}/grpc-unity-targets.cmake]])")
elseif(CMAKE_VERSION VERSION_GREATER_EQUAL 3.16)
  set(GRPC_UNITY_TARGETS ${CMAKE_CURRENT_LIST_DIR}/grpc-unity-targets.cmake)
  macro(add_library name)
    _add_library(${name} ${ARGN})
    if("${name}" STREQUAL "grpc")
      include(${GRPC_UNITY_TARGETS})
    endif()
  endmacro()
endif()

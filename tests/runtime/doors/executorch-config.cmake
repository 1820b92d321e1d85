# What find_package(executorch) finds in the tests: the target `executorch`, which is the Python package's, in
# BVE_EXECUTORCH, without Python and without torch. The library of its Python module needs both; here a stand-in of
# torch's names has every function that it lacks, and stops the program if one is called.

if(TARGET executorch)
  return()
endif()
file(GLOB _runtime "${BVE_EXECUTORCH}/extension/pybindings/_portable_lib.*.so")
file(GLOB _more "${BVE_EXECUTORCH}/backends/qualcomm/libqnn_executorch_backend.so") # half of the runtime, on x86-64
if(NOT _runtime)
  set(executorch_FOUND FALSE)
  set(executorch_NOT_FOUND_MESSAGE "no _portable_lib.*.so in BVE_EXECUTORCH, '${BVE_EXECUTORCH}'")
  return()
endif()

function(_list_symbols result kind) # of the files: `undefined` without a version, which only torch and Python have, or `defined`
  execute_process(COMMAND ${CMAKE_NM} -D --${kind}-only ${ARGN} OUTPUT_VARIABLE text COMMAND_ERROR_IS_FATAL ANY)
  if(kind STREQUAL "undefined")
    string(REGEX MATCHALL " U [^@ \n]+\n" lines "${text}")
  else()
    string(REGEX MATCHALL " [A-Z] [^ \n]+\n" lines "${text}")
  endif()
  list(TRANSFORM lines REPLACE "^ . ([^@\n]+).*" "\\1")
  list(REMOVE_DUPLICATES lines)
  set(${result} "${lines}" PARENT_SCOPE)
endfunction()

execute_process(COMMAND ${CMAKE_CXX_COMPILER} -print-file-name=libstdc++.so.6 OUTPUT_VARIABLE _standard
  OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
_list_symbols(_missing undefined ${_runtime} ${_more})
_list_symbols(_there defined ${_runtime} ${_more} ${_standard})
list(REMOVE_ITEM _missing ${_there})
file(READ "${CMAKE_CURRENT_LIST_DIR}/torch_stand_in.cc" _text)
string(REGEX MATCHALL "[a-z0-9_]+\\(" _written "${_text}")
list(TRANSFORM _written REPLACE "\\($" "")
list(REMOVE_ITEM _missing ${_written})
foreach(_name IN LISTS _missing)
  string(APPEND _text "asm(\".globl ${_name}\\n.set ${_name}, stop\");\n")
endforeach()
file(CONFIGURE OUTPUT torch_stand_in/c10.cc CONTENT "${_text}" @ONLY)
file(CONFIGURE OUTPUT torch_stand_in/empty.cc CONTENT "")

add_library(executorch INTERFACE)
target_link_options(executorch INTERFACE -Wl,--no-as-needed)
foreach(_name c10 torch torch_cpu torch_python)
  add_library(stand_in_${_name} SHARED "${CMAKE_CURRENT_BINARY_DIR}/torch_stand_in/empty.cc")
  set_target_properties(stand_in_${_name} PROPERTIES OUTPUT_NAME ${_name} LIBRARY_OUTPUT_DIRECTORY torch_stand_in
    CXX_VISIBILITY_PRESET default)
  target_link_libraries(executorch INTERFACE stand_in_${_name})
endforeach()
target_sources(stand_in_c10 PRIVATE "${CMAKE_CURRENT_BINARY_DIR}/torch_stand_in/c10.cc")
target_include_directories(executorch SYSTEM INTERFACE "${BVE_EXECUTORCH}/include"
  "${BVE_EXECUTORCH}/include/executorch/runtime/core/portable_type/c10")
target_compile_definitions(executorch INTERFACE C10_USING_CUSTOM_GENERATED_MACROS)
target_link_libraries(executorch INTERFACE ${_runtime} ${_more})
target_link_options(executorch INTERFACE "-Wl,-rpath-link,${CMAKE_CURRENT_BINARY_DIR}/torch_stand_in")

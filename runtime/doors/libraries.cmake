# libbve.so, and the doors of those frameworks whose headers are there. Each has the core inside.

set(LIBRARIES bve)

function(add_core_library name exports) # then its sources
  # Visibility alone leaves libstdc++'s templates to be seen, and replaced by an embedder's.
  file(WRITE "${CMAKE_BINARY_DIR}/${name}.map" "{ global: ${exports} local: *; };\n")
  add_library(${name} SHARED ${ARGN})
  target_link_libraries(${name} PRIVATE bve_core bve_kernels)
  target_include_directories(${name} INTERFACE $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/runtime/doors>)
  target_link_options(${name} PRIVATE ${SELF_CONTAINED} "-Wl,--version-script=${CMAKE_BINARY_DIR}/${name}.map"
    -Wl,-z,nodelete) # ExecuTorch forgets no backend, and threads that met the C++ library in here end in it
endfunction()

function(leave_out door why)
  if(BVE_PACKAGE OR BVE_ALL_DOORS)
    message(FATAL_ERROR "${door} cannot be built: ${why}")
  endif()
  message(STATUS "${door} is left out: ${why}")
endfunction()

add_core_library(bve "bve_*;")

# ---- ExecuTorch ----------------------------------------------------------------------------------------------------

if(NOT BVE_EXECUTORCH AND Python_EXECUTABLE AND NOT CMAKE_CROSSCOMPILING)
  execute_process(COMMAND "${Python_EXECUTABLE}" -c "import sysconfig; print(sysconfig.get_path('platlib'))"
    OUTPUT_VARIABLE BVE_EXECUTORCH OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  set(BVE_EXECUTORCH "${BVE_EXECUTORCH}/executorch")
endif()
file(GLOB EXECUTORCH_DOOR CONFIGURE_DEPENDS runtime/doors/executorch*.cc)
if(NOT EXISTS "${BVE_EXECUTORCH}/include/executorch")
  leave_out(libbve_executorch.so "no headers of ExecuTorch in '${BVE_EXECUTORCH}'; give -DBVE_EXECUTORCH=")
else()
  file(STRINGS "${BVE_EXECUTORCH}/version.py" EXECUTORCH_VERSION REGEX "^__version__ = ")
  string(REGEX REPLACE ".*\"([^\"+]+).*" "\\1" EXECUTORCH_VERSION "${EXECUTORCH_VERSION}")
  add_library(executorch_headers INTERFACE)
  target_include_directories(executorch_headers SYSTEM INTERFACE "${BVE_EXECUTORCH}/include"
    "${BVE_EXECUTORCH}/include/executorch/runtime/core/portable_type/c10")
  target_compile_definitions(executorch_headers INTERFACE C10_USING_CUSTOM_GENERATED_MACROS)
  add_core_library(bve_executorch "bve_executorch_*;" ${EXECUTORCH_DOOR})
  target_link_libraries(bve_executorch PRIVATE executorch_headers)
  target_compile_definitions(bve_executorch PRIVATE BVE_VERSION="${VERSION}"
    BVE_EXECUTORCH_VERSION="${EXECUTORCH_VERSION}")
  file(GLOB PORTABLE_LIB "${BVE_EXECUTORCH}/extension/pybindings/_portable_lib.*.so")
  if(PORTABLE_LIB AND NOT BVE_PACKAGE)
    # Python loads it for itself alone: its symbols are found only by a library that names it.
    target_link_libraries(bve_executorch PRIVATE "${PORTABLE_LIB}")
    target_link_options(bve_executorch PRIVATE -Wl,--no-as-needed)
    set_target_properties(bve_executorch PROPERTIES SKIP_BUILD_RPATH ON) # Python has loaded it by then
  endif()
  list(APPEND LIBRARIES bve_executorch)
endif()

# ---- TensorFlow Lite -----------------------------------------------------------------------------------------------

set(TFLITE_VERSION 0.0.2)
set(TFLITE_SHA256 3be1632328a76a2475e5b6833253763c802c859433becb4d879ee1860e3b5284)
set(why "no headers of TensorFlow Lite in '${BVE_TFLITE}'")
if(NOT BVE_TFLITE)
  set(archive "${CMAKE_BINARY_DIR}/tfjs-tflite-node-${TFLITE_VERSION}.tgz")
  find_program(NPM npm)
  if(NPM AND NOT EXISTS "${archive}")
    execute_process(COMMAND "${NPM}" pack --silent tfjs-tflite-node@${TFLITE_VERSION}
      WORKING_DIRECTORY "${CMAKE_BINARY_DIR}" OUTPUT_QUIET TIMEOUT 120)
  endif()
  if(EXISTS "${archive}")
    file(SHA256 "${archive}" sha256)
    if(sha256 STREQUAL TFLITE_SHA256)
      file(ARCHIVE_EXTRACT INPUT "${archive}" DESTINATION "${CMAKE_BINARY_DIR}/tflite")
      set(BVE_TFLITE "${CMAKE_BINARY_DIR}/tflite/package/cc_deps")
    else()
      file(REMOVE "${archive}") # the next time gets it again
      set(why "what npm got for tfjs-tflite-node has SHA-256 ${sha256}, expected ${TFLITE_SHA256}")
    endif()
  endif()
endif()
file(GLOB LITERT_DOOR CONFIGURE_DEPENDS runtime/doors/litert*.cc)
if(NOT EXISTS "${BVE_TFLITE}/include/tensorflow/lite/c/common.h")
  leave_out(libbve_litert.so "${why}; have npm, which gets them, and a network, or give -DBVE_TFLITE=")
else()
  add_library(tflite_headers INTERFACE)
  target_include_directories(tflite_headers SYSTEM INTERFACE "${BVE_TFLITE}/include")
  add_core_library(bve_litert "tflite_plugin_*; bve_litert_*;" ${LITERT_DOOR})
  target_link_libraries(bve_litert PRIVATE tflite_headers)
  if(NOT BVE_SANITIZE) # whose library comes with the program
    target_link_options(bve_litert PRIVATE -Wl,-z,defs) # it calls its runtime by what it is handed alone
  endif()
  list(APPEND LIBRARIES bve_litert)
endif()

# ---- Java ----------------------------------------------------------------------------------------------------------

if(BVE_JNI)
  if(NOT ANDROID) # whose NDK has the headers where it has all others
    find_program(JAVAC javac)
    get_filename_component(java "${JAVAC}" REALPATH)
    get_filename_component(java "${java}/../../include" ABSOLUTE)
    find_path(JNI_INCLUDE jni.h PATHS "${java}" NO_DEFAULT_PATH)
  endif()
  if(NOT ANDROID AND NOT JNI_INCLUDE)
    leave_out(libbve_jni.so "no jni.h beside javac '${JAVAC}'; apt-get install default-jdk-headless")
  else()
    add_library(jni_headers INTERFACE)
    if(NOT ANDROID)
      target_include_directories(jni_headers SYSTEM INTERFACE "${JNI_INCLUDE}" "${JNI_INCLUDE}/linux")
    endif()
    add_core_library(bve_jni "Java_dev_bigvit_edge_*;" runtime/doors/jni.cc)
    target_link_libraries(bve_jni PUBLIC jni_headers)
    set(JNI bve_jni)
  endif()
endif()

if(SKBUILD)
  install(TARGETS ${LIBRARIES} LIBRARY DESTINATION bigvit_edge/runtime)
  # `bigvit-edge runtime-libs` builds them again for other machines.
  install(FILES CMakeLists.txt pyproject.toml LICENSE DESTINATION bigvit_edge/sources)
  install(DIRECTORY kernels_arm runtime DESTINATION bigvit_edge/sources
    FILES_MATCHING REGEX "\\.(cc|h|inc|cmake|in|java|swift|modulemap|xml|txt)$")
elseif(BVE_PACKAGE)
  include(runtime/doors/package/package.cmake)
endif()

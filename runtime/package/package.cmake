# What `bigvit-edge runtime-libs` leaves in its folder.

include(CMakePackageConfigHelpers)
foreach(target IN LISTS LIBRARIES)
  string(REPLACE bve_ "" name ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name})
endforeach()
# It registers itself when it is loaded, and nothing of it needs to be called: a linker would leave it out.
target_link_options(bve_executorch INTERFACE LINKER:-u,bve_executorch_version)
install(TARGETS ${LIBRARIES} EXPORT targets LIBRARY DESTINATION lib INCLUDES DESTINATION include)
if(JNI) # which goes into an archive
  install(TARGETS ${JNI} LIBRARY DESTINATION jni)
endif()
install(EXPORT targets FILE targets.cmake NAMESPACE bigvit_edge:: DESTINATION lib/cmake/bigvit_edge)
configure_file(runtime/package/config.cmake.in bigvit_edge-config.cmake @ONLY)
write_basic_package_version_file(bigvit_edge-config-version.cmake VERSION ${VERSION} COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_BINARY_DIR}/bigvit_edge-config.cmake" "${CMAKE_BINARY_DIR}/bigvit_edge-config-version.cmake"
  DESTINATION lib/cmake/bigvit_edge)
file(GLOB headers runtime/bve.h runtime/delegates/bve_*.h)
install(FILES ${headers} DESTINATION include)
# With what libbve.so keeps to itself.
file(GLOB headers runtime/delegates/executorch*.h)
install(FILES ${EXECUTORCH_DELEGATE} ${headers} runtime/delegates/port_call.h runtime/delegates/shared_programs.h
  runtime/error_text.cc runtime/error_text.h DESTINATION share/bigvit_edge/executorch)
install(FILES LICENSE DESTINATION share/bigvit_edge)
install(DIRECTORY runtime/package/examples DESTINATION share/bigvit_edge)

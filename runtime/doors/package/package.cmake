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
configure_file(runtime/doors/package/config.cmake.in bigvit_edge-config.cmake @ONLY)
write_basic_package_version_file(bigvit_edge-config-version.cmake VERSION ${VERSION} COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_BINARY_DIR}/bigvit_edge-config.cmake" "${CMAKE_BINARY_DIR}/bigvit_edge-config-version.cmake"
  DESTINATION lib/cmake/bigvit_edge)
file(GLOB headers runtime/bve.h runtime/doors/bve_*.h)
install(FILES ${headers} DESTINATION include)
file(GLOB headers runtime/doors/executorch*.h)
install(FILES ${EXECUTORCH_DOOR} ${headers} runtime/doors/shared_programs.h DESTINATION share/bigvit_edge/executorch)
install(FILES LICENSE DESTINATION share/bigvit_edge)
install(DIRECTORY runtime/doors/package/examples DESTINATION share/bigvit_edge)
